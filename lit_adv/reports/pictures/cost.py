"""A metric against training time, one point per choice: which ones are worth their time?"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from lit_adv import better
from lit_adv.reports.choices import firsts
from lit_adv.reports.setting import Setting
from lit_adv.reports.spread import Spread
from lit_adv.reports.sweep import Problem, Sweep, ranked

SECONDS = "train_seconds"


@dataclass(frozen=True)
class Point:
    """One choice, at the best of its settings.

    Args:
        letter: that stands for it.
        name: the setting.
        seconds: of training.
        metric: that is shown.
        front: whether no other one is both as fast and as good.
    """

    letter: str
    name: str
    seconds: Spread
    metric: Spread
    front: bool


@dataclass(frozen=True)
class Cost:
    """The picture's figures.

    Args:
        metric: upwards.
        data: name of the texts, where there are several.
        points: by their letters.
        left_out: how many choices have no letter left.
        chosen: metric by which the best setting of each choice was chosen; empty where each choice
            has but one.
    """

    metric: str
    data: str
    points: list[Point]
    left_out: int
    chosen: str


def find(sweep: Sweep, problem: Problem) -> list[Cost]:
    """The comparison, where choices differ that are no numbers."""
    shown = sweep.metric.shown
    known = [s for s in problem.settings if s.spread(SECONDS) and s.spread(shown)]
    found = firsts(known, sweep)
    several = len(found) < len(known)
    if len(found) < (3 if several else 2):  # a number was swept, and its baseline: no comparison
        return []
    if several and sweep.metric.chosen is None:  # nothing to choose the one to show by
        return []
    best = (ranked(found, sweep.metric) or found)[: len(ascii_uppercase)]
    points = _points(sweep, sorted(best, key=lambda s: s.number))
    chosen = (sweep.metric.chosen or "") if several else ""
    return [Cost(shown, problem.data, points, len(found) - len(points), chosen)]


def front(places: Sequence[tuple[float, float]], *, less: bool) -> list[bool]:
    """For each (cost, metric) whether no other costs no more, is no worse, and is not its equal.

    >>> front([(1, 0.5), (2, 0.9), (3, 0.8), (4, 0.95)], less=False)
    [True, True, False, True]

    Args:
        places: of all.
        less: whether less of the metric is better.
    """
    sign = 1 if less else -1
    signed = [(cost, sign * value) for cost, value in places]
    return [
        not any(c <= cost and v <= value and (c, v) != (cost, value) for c, v in signed)
        for cost, value in signed
    ]


def _points(sweep: Sweep, settings: Sequence[Setting]) -> list[Point]:
    metric = sweep.metric.shown
    found = [(s, s.spread(SECONDS), s.spread(metric)) for s in settings]
    known = [(s, seconds, value) for s, seconds, value in found if seconds and value]
    best = front([(c.mean, v.mean) for _, c, v in known], less=better.less(metric))
    return [
        Point(letter, sweep.label(setting), seconds, value, first)
        for letter, (setting, seconds, value), first in zip(
            ascii_uppercase, known, best, strict=False
        )
    ]
