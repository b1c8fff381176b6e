"""Cards of attack.html: one example each, what stood there and what the attack wrote."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from lit_adv.pages.parts import safe

OUTCOMES = {
    "succeeded": "attack succeeded",
    "failed": "attack failed",
    "misclassified": "misclassified before the attack",
    "skipped": "skipped",
}
UNKNOWN = "n/a"


def card(record: Mapping[str, Any], label_names: Sequence[str]) -> str:
    """One example."""
    outcome, index = safe(record["outcome"]), safe(record["index"])
    kinds = f"{outcome} differs" if differs(record) else outcome
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
    if not differs(record):
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


def differs(record: Mapping[str, Any]) -> bool:
    """Whether the attack on the calibrated victim came to something else."""
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
        parts.append(f"similarity&nbsp;{figure(similarity, '{:.2f}')}")
    if record.get("truncated"):
        parts.append("the victim reads only its beginning")
    return " &middot; ".join(parts)


def figure(value: float | None, form: str = "{:.1f}%") -> str:
    """A number as it is shown.

    >>> figure(85.94), figure(0.87, "{:.2f}"), figure(None)
    ('85.9%', '0.87', 'n/a')
    """
    return form.format(value) if known(value) else UNKNOWN


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to be shown."""
    return value is not None and math.isfinite(value)
