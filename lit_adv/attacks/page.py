"""attack.html: what an attack did, to be read in a browser. One file, nothing fetched from outside.

The frame, with its style and script, is page.html; here are the parts that depend on the attack.
Every text passes through `safe`: an attacked text may hold tags, quotes or anything else.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_adv.attacks.cards import OUTCOMES, UNKNOWN, card, differs, figure, known
from lit_adv.pages.parts import fill, safe
from lit_adv.pages.parts import write as write_whole


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
        "cards": "\n".join(card(record, label_names) for record in records)
        or '<p class="quiet">No examples were recorded.</p>',
        "details": _details(summary),
    }
    write_whole(path, fill("lit_adv.attacks", "page.html", parts))


def _lead(summary: Mapping[str, Any]) -> str:
    parts = [
        f"{safe(summary['n'])} examples",
        figure(summary.get("seconds"), "{:,.0f} s"),
        figure(summary.get("queries_per_second"), "{:,.0f} queries/s"),
        figure(summary.get("mean_similarity"), "mean similarity {:.2f}"),
    ]
    line = " &middot; ".join(part for part in parts if part != UNKNOWN)
    return f"Victim <code>{safe(summary['victim'])}</code><br>{line}"


def _tiles(summary: Mapping[str, Any]) -> str:
    calibrated = summary.get("calibrated") or {}
    examples = summary.get("examples") or {}
    clean, attacked = summary.get("clean_accuracy"), summary.get("accuracy_under_attack")
    tried = examples.get("succeeded", 0) + examples.get("failed", 0)

    def again(name: str, form: str = "{:.1f}%") -> str:
        return f"calibrated {figure(calibrated[name], form)}" if name in calibrated else ""

    lost = clean - attacked if known(clean) and known(attacked) else None
    success = f"{examples.get('succeeded', 0)} of {tried} attacked"
    heated = figure(calibrated.get("temperature"), "at temperature {:.2f}")
    accuracy, queries = calibrated.get("accuracy_under_attack"), summary.get("mean_queries")
    rate, changed = summary.get("success_rate"), summary.get("mean_changed")
    tiles = (
        ("Clean accuracy", figure(clean), "before the attack"),
        ("Accuracy under attack", figure(attacked), figure(lost, "{:.1f} points lost")),
        ("Calibrated, under attack", figure(accuracy), heated if calibrated else "not measured"),
        ("Success rate", figure(rate), again("success_rate") or success),
        ("Mean queries", figure(queries, "{:,.1f}"), again("mean_queries", "{:,.1f}")),
        ("Words changed", figure(changed), again("mean_changed") or "mean over successes"),
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

    said = ", ".join(f"{name} {figure(value)}" for _, name, value in bars)
    height = 40
    drawn = [
        f'<svg role="img" aria-label="Accuracy: {said}" width="100%" height="{height * len(bars)}">'
    ]
    for row, (kind, name, value) in enumerate(bars):
        top = height * row
        width = min(max(value, 0), 100) if known(value) else 0
        drawn += [
            f'<text x="0" y="{top + 14}">{name}</text>',
            f'<text x="100%" y="{top + 14}" text-anchor="end">{figure(value)}</text>',
            f'<rect class="track" y="{top + 20}" width="100%" height="12" rx="2"/>',
            f'<rect class="{kind}" y="{top + 20}" width="{width:.2f}%" height="12" rx="2"/>',
        ]
    return "\n".join([*drawn, "</svg>"])


def _controls(records: Sequence[Mapping[str, Any]]) -> str:
    """Filters for the outcomes that occur; hidden until the script that serves them has run."""
    counts = Counter(record["outcome"] for record in records)
    choices = [("all", "all", len(records))]
    choices += [(name, name, counts[name]) for name in OUTCOMES if counts[name]]
    if differing := sum(differs(record) for record in records):
        choices.append(("differs", "calibrated differs", differing))
    return "\n".join(
        f'<button type="button" data-show="{kind}" aria-pressed="{str(kind == "all").lower()}">'
        f"{name} <b>{count}</b></button>"
        for kind, name, count in choices
    )


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
