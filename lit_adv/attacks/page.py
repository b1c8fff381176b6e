"""attack.html: what an attack did, to be read in a browser. One file, nothing fetched from outside.

The frame, with its style and script, is page.html; here are the parts that depend on the attack.
Every text passes through `safe`: an attacked text may hold tags, quotes or anything else.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from lit_adv.pages.parts import fill, safe
from lit_adv.pages.parts import write as write_whole

OUTCOMES = {
    "succeeded": "attack succeeded",
    "failed": "attack failed",
    "misclassified": "misclassified before the attack",
    "skipped": "skipped",
}
UNKNOWN = "n/a"


def write(
    path: Path,
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    label_names: Sequence[str],
) -> None:
    """Write the page whole or not at all.

    Args:
        path: file to write.
        summary: figures of the whole attack, in per cent where they are shares; None is unknown.
        records: one for each example, with its texts and the segments to be marked.
        label_names: name of each class; a label without one is shown as its number.
    """
    parts = {
        "title": safe(f"{summary['recipe']} on {summary['data']}"),
        "lead": _lead(summary),
        "tiles": _tiles(summary),
        "bars": _bars(summary),
        "controls": _controls(records),
        "cards": "\n".join(_card(record, label_names) for record in records)
        or '<p class="quiet">No examples were recorded.</p>',
        "details": _details(summary),
    }
    write_whole(path, fill("lit_adv.attacks", "page.html", parts))


def _figure(value: float | None, form: str = "{:.1f}%") -> str:
    """A number as it is shown.

    >>> _figure(85.94), _figure(0.87, "{:.2f}"), _figure(None)
    ('85.9%', '0.87', 'n/a')
    """
    return form.format(value) if _known(value) else UNKNOWN


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _lead(summary: Mapping[str, Any]) -> str:
    parts = [
        f"{safe(summary['n'])} examples",
        _figure(summary.get("seconds"), "{:,.0f} s"),
        _figure(summary.get("queries_per_second"), "{:,.0f} queries/s"),
        _figure(summary.get("mean_similarity"), "mean similarity {:.2f}"),
    ]
    known = " &middot; ".join(part for part in parts if part != UNKNOWN)
    return f"Victim <code>{safe(summary['victim'])}</code><br>{known}"


def _tiles(summary: Mapping[str, Any]) -> str:
    calibrated = summary.get("calibrated") or {}
    examples = summary.get("examples") or {}
    clean, attacked = summary.get("clean_accuracy"), summary.get("accuracy_under_attack")
    tried = examples.get("succeeded", 0) + examples.get("failed", 0)

    def again(name: str, form: str = "{:.1f}%") -> str:
        return f"calibrated {_figure(calibrated[name], form)}" if name in calibrated else ""

    lost = clean - attacked if _known(clean) and _known(attacked) else None
    success = f"{examples.get('succeeded', 0)} of {tried} attacked"
    heated = _figure(calibrated.get("temperature"), "at temperature {:.2f}")
    accuracy, queries = calibrated.get("accuracy_under_attack"), summary.get("mean_queries")
    rate, changed = summary.get("success_rate"), summary.get("mean_changed")
    tiles = (
        ("Clean accuracy", _figure(clean), "before the attack"),
        ("Accuracy under attack", _figure(attacked), _figure(lost, "{:.1f} points lost")),
        ("Calibrated, under attack", _figure(accuracy), heated if calibrated else "not measured"),
        ("Success rate", _figure(rate), again("success_rate") or success),
        ("Mean queries", _figure(queries, "{:,.1f}"), again("mean_queries", "{:,.1f}")),
        ("Words changed", _figure(changed), again("mean_changed") or "mean over successes"),
    )
    return "\n".join(
        f'<div><dt>{name}</dt><dd>{figure}</dd><dd class="quiet">{note}</dd></div>'
        for name, figure, note in tiles
    )


def _bars(summary: Mapping[str, Any]) -> str:
    """Accuracies as bars; widths in per cent, so that the letters keep their size on a phone."""
    bars = [
        ("clean", "clean", summary.get("clean_accuracy")),
        ("attacked", "under attack", summary.get("accuracy_under_attack")),
    ]
    if calibrated := summary.get("calibrated"):
        accuracy = calibrated.get("accuracy_under_attack")
        bars.append(("again", "under attack, calibrated", accuracy))

    said = ", ".join(f"{name} {_figure(value)}" for _, name, value in bars)
    height = 40
    drawn = [
        f'<svg role="img" aria-label="Accuracy: {said}" width="100%" height="{height * len(bars)}">'
    ]
    for row, (kind, name, value) in enumerate(bars):
        top = height * row
        width = min(max(value, 0), 100) if _known(value) else 0
        drawn += [
            f'<text x="0" y="{top + 14}">{name}</text>',
            f'<text x="100%" y="{top + 14}" text-anchor="end">{_figure(value)}</text>',
            f'<rect class="track" y="{top + 20}" width="100%" height="12" rx="2"/>',
            f'<rect class="{kind}" y="{top + 20}" width="{width:.2f}%" height="12" rx="2"/>',
        ]
    return "\n".join([*drawn, "</svg>"])


def _controls(records: Sequence[Mapping[str, Any]]) -> str:
    """Filters for the outcomes that occur; hidden until the script that serves them has run."""
    counts = Counter(record["outcome"] for record in records)
    choices = [("all", "all", len(records))]
    choices += [(name, name, counts[name]) for name in OUTCOMES if counts[name]]
    if differing := sum(_differs(record) for record in records):
        choices.append(("differs", "calibrated differs", differing))
    return "\n".join(
        f'<button type="button" data-show="{kind}" aria-pressed="{str(kind == "all").lower()}">'
        f"{name} <b>{count}</b></button>"
        for kind, name, count in choices
    )


def _card(record: Mapping[str, Any], label_names: Sequence[str]) -> str:
    outcome, index = safe(record["outcome"]), safe(record["index"])
    kinds = f"{outcome} differs" if _differs(record) else outcome
    said = OUTCOMES.get(record["outcome"], outcome)
    if record.get("reason"):
        said += f": {safe(record['reason'])}"

    texts = []
    if record.get("first") is not None:
        texts.append(_text("First text, fixed", record["first"]))
    return "\n".join(
        [
            f'<article class="card {outcome}" id="example-{index}" data-kinds="{kinds}">',
            f'<header><h3><a href="#example-{index}">#{index}</a></h3>',
            f'<span class="outcome">{said}</span>',
            f'<span class="labels">{_labels(record, record, label_names)}</span></header>',
            f"<dl>{''.join([*texts, *_pair(record['original'], record)])}</dl>",
            f'<p class="quiet">{_measures(record, record)}</p>',
            _calibrated(record, label_names),
            "</article>",
        ]
    )


def _calibrated(record: Mapping[str, Any], label_names: Sequence[str]) -> str:
    """What the attack on the calibrated victim came to, where that is something else."""
    if not _differs(record):
        return ""
    again = record["calibrated"]
    said = OUTCOMES.get(again["outcome"], safe(again["outcome"]))
    texts = _pair(record["original"], again)
    return "\n".join(
        [
            '<section class="again"><header>',
            f'<span class="outcome {safe(again["outcome"])}">calibrated victim: {said}</span>',
            f'<span class="labels">{_labels(record, again, label_names)}</span></header>',
            f"<dl>{''.join(texts)}</dl>" if len(texts) > 1 else "",  # the original is above
            f'<p class="quiet">{_measures(record, again)}</p>',
            "</section>",
        ]
    )


def _differs(record: Mapping[str, Any]) -> bool:
    again = record.get("calibrated")
    return bool(again) and again["outcome"] != record["outcome"]


def _labels(
    record: Mapping[str, Any], attacked: Mapping[str, Any], label_names: Sequence[str]
) -> str:
    """True label, prediction and prediction after the attack, each said to be right or wrong."""

    def step(caption: str, label: Any) -> str:
        # names[-1] would be the last class: a negative label has no name
        named = isinstance(label, int) and 0 <= label < len(label_names)
        name = safe(label_names[label] if named else label)
        right = label == record["label"]
        first = caption == "label"
        arrow = "" if first else '<span aria-hidden="true">&rarr;</span> '
        sign = "" if first else " &check;" if right else " &cross;"
        kind = "right" if right else "wrong"
        return (
            f'<span class="{kind}">{arrow}<small>{caption}</small> <bdi>{name}</bdi>{sign}</span>'
        )

    steps = [
        ("label", record["label"]),
        ("predicted", record.get("prediction")),
        ("attacked", attacked.get("new_prediction")),
    ]
    return " ".join(step(caption, label) for caption, label in steps if label is not None)


def _pair(original: str, attacked: Mapping[str, Any]) -> list[str]:
    """Both texts; only the original where the attack left it as it was."""
    texts = [_text("Original", original, attacked.get("marked_original"), mark="del")]
    if attacked.get("perturbed") not in (None, original):
        marked = attacked.get("marked_perturbed")
        texts.append(_text("Attacked", attacked["perturbed"], marked, mark="ins"))
    return texts


def _text(
    caption: str,
    text: str,
    segments: Sequence[tuple[str, bool]] | None = None,
    mark: str = "",
) -> str:
    """A text under its caption, changed segments marked; its own script sets the direction."""
    shown = "".join(
        f"<{mark}>{safe(part)}</{mark}>" if changed and part else safe(part)
        for part, changed in segments or [(text, False)]
    )
    return f'<dt>{caption}</dt><dd class="text" dir="auto">{shown}</dd>'


def _measures(record: Mapping[str, Any], attacked: Mapping[str, Any]) -> str:
    queries, changed = attacked.get("queries"), attacked.get("changed")
    words = record.get("words")
    parts = [] if queries is None else [f"{queries:,} {'query' if queries == 1 else 'queries'}"]
    if attacked.get("perturbed") is not None and changed is not None:
        parts.append(f"{100 * changed:.1f}% of {words} words changed")
    elif words is not None:
        parts.append(f"{words} {'word' if words == 1 else 'words'}")
    if (similarity := attacked.get("similarity")) is not None:
        parts.append(f"similarity&nbsp;{_figure(similarity, '{:.2f}')}")
    if record.get("truncated"):
        parts.append("the victim reads only its beginning")
    return " &middot; ".join(parts)


def _details(summary: Mapping[str, Any]) -> str:
    resources = [
        [resource.get(key) or "" for key in ("name", "path", "sha256")]
        for resource in summary.get("resources") or []
    ]
    settings, versions = (
        [[key, _plain(value)] for key, value in (summary.get(name) or {}).items()]
        for name in ("settings", "versions")
    )
    notes = "".join(f"<li>{safe(note)}</li>" for note in summary.get("notes") or [])
    return "\n".join(
        [
            f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "",
            _table("Settings", ("option", "value"), settings),
            _table("Resources", ("name", "path", "sha256"), resources),
            _table("Versions", ("package", "version"), versions),
        ]
    )


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{safe(name)}</th>'
        + "".join(f"<td><code>{safe(value)}</code></td>" for value in values)
        + "</tr>\n"
        for name, *values in rows
    )
    return (
        f"<details><summary>{caption}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def _plain(value: object) -> str:
    """A setting as one would write it in YAML; strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
