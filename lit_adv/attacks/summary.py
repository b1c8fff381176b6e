"""From the records of single attacks to the figures of all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

OUTCOMES = ("succeeded", "failed", "misclassified", "skipped")
Record = Mapping[str, Any]


def of(records: Sequence[Record]) -> dict[str, Any]:
    """Figures of a set of attacks; percentages from 0 to 100, None where there is nothing to count.

    clean_accuracy: right before the attack, of all that were not skipped. accuracy_under_attack:
    right after it, of the same. success_rate: turned, of those right before (1 - accuracy under
    attack / clean accuracy). mean_queries: over attacks that took place. mean_changed (per cent of
    words) and mean_similarity: over those that succeeded.
    """
    counts = Counter(r["outcome"] for r in records)
    won = [r for r in records if r["outcome"] == "succeeded"]
    attacked = [r for r in records if r["outcome"] in ("succeeded", "failed")]
    alike = [r["similarity"] for r in won if r.get("similarity") is not None]
    return {
        "examples": {name: counts[name] for name in OUTCOMES},
        **accuracies(counts),
        "success_rate": _percent(len(won), len(attacked)),
        "mean_queries": _mean([r["queries"] for r in attacked if "queries" in r]),
        "mean_changed": _mean([100 * r["changed"] for r in won if "changed" in r]),
        "mean_similarity": _mean(alike),
    }


def accuracies(counts: Counter[str]) -> dict[str, float | None]:
    """Clean and under attack, from the numbers of outcomes."""
    counted = counts.total() - counts["skipped"]
    return {
        "clean_accuracy": _percent(counts["succeeded"] + counts["failed"], counted),
        "accuracy_under_attack": _percent(counts["failed"], counted),
    }


def calibrated(records: Sequence[Record], temperature: float) -> dict[str, Any]:
    """The same of the attacks on the calibrated victim."""
    return {
        "temperature": temperature,
        **of([{**r, **(r.get("calibrated") or {})} for r in records]),
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
