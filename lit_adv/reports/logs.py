"""What runs logged by step, as few points as a picture needs."""

import csv
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

from lit_adv import turn
from lit_adv.levels import ACCORDANCE

NAMES = ("train/loss", "val/loss", *ACCORDANCE)
Points = list[tuple[float, float]]


def read(folder: Path) -> dict[str, dict[int, float]]:
    """The finite values by name and step of a run, also while it writes them; {} where it has none.

    Args:
        folder: of the run.
    """
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    whole = text[: text.rfind("\n") + 1]  # the last line may be half a line, its number half one
    rows = list(csv.DictReader(io.StringIO(whole)))
    found: dict[str, dict[int, float]] = {}
    for name in NAMES:
        try:
            found[name] = turn.series(rows, name)
        except (KeyError, ValueError):  # read while the logger was writing its header anew
            continue
    return {name: series for name, series in found.items() if series}


def mean(series: Sequence[dict[int, float]]) -> Points:
    """Their mean at the steps that all of them have, in order.

    >>> mean([{1: 0.5, 2: 0.4}, {1: 0.7}])
    [(1.0, 0.6)]
    """
    if not series:
        return []
    common = set(series[0]).intersection(*series[1:])
    return [(float(step), fmean(each[step] for each in series)) for step in sorted(common)]


def stretches(points: Points, most: int = 60) -> Points:
    """At most so many points, each the mean of a stretch: single batches scatter.

    >>> stretches([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 7.0)], most=2)
    [(0.5, 2.0), (2.5, 6.0)]
    """
    size = -(-len(points) // most) if points else 1
    ahead = iter(points)
    return [
        (fmean(x for x, _ in stretch), fmean(y for _, y in stretch))
        for stretch in iter(lambda: list(islice(ahead, size)), [])
    ]


def some(points: Points, most: int = 60) -> Points:
    """At most so many of the points, the lowest and the last one among them."""
    if len(points) <= most:
        return points
    step = -(-len(points) // (most - 2))
    lowest = min(range(len(points)), key=lambda place: points[place][1])
    kept = sorted({*range(0, len(points), step), lowest, len(points) - 1})
    return [points[place] for place in kept]
