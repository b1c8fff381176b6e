"""A metric over two swept numbers: a cell per pair."""

from dataclasses import dataclass

from lit_adv import better
from lit_adv.reports import labels
from lit_adv.reports.axes import numeric
from lit_adv.reports.setting import Setting
from lit_adv.reports.settings import Value
from lit_adv.reports.spread import Spread
from lit_adv.reports.sweep import Problem, Sweep


@dataclass(frozen=True)
class Heat:
    """The picture's figures.

    Args:
        across: key of the columns.
        up: key of the rows.
        metric: of the cells.
        data: name of the texts, where there are several.
        others: what all cells have alike and other heat maps have not; empty where this is all.
        columns: values of the first key, in order.
        rows: values of the second one, in order.
        cells: (column, row) -> spread over seeds.
        best: the cell that is best by validation, or None.
        chosen: metric that it is best by.
    """

    across: str
    up: str
    metric: str
    data: str
    others: str
    columns: list[Value]
    rows: list[Value]
    cells: dict[tuple[Value, Value], Spread]
    best: tuple[Value, Value] | None
    chosen: str

    def shade(self, found: Spread) -> float:
        """How good it is among all cells: 0 the worst, 1 the best."""
        means = [each.mean for each in self.cells.values()]
        low, high = min(means), max(means)
        share = (found.mean - low) / (high - low) if high > low else 0.5
        return 1 - share if better.less(self.metric) else share


def find(sweep: Sweep, problem: Problem) -> list[Heat]:
    """A heat map where two numbers were swept against each other, for all else that differs."""
    keys = [key for key in sweep.axes if numeric(key, problem.settings)]
    if len(keys) != 2:
        return []
    across, up = keys
    others = [axis for axis in sweep.axes if axis not in keys]
    groups: dict[tuple[Value, ...], list[Setting]] = {}
    for each in problem.settings:
        if across in each.values and up in each.values and each.spread(sweep.metric.shown):
            groups.setdefault(tuple(each.values.get(axis) for axis in others), []).append(each)
    several = {key: v for key, v in groups.items() if _is_grid(v, across, up)}
    return [_heat(sweep, problem, v, keys, others, len(several) > 1) for v in several.values()]


def _heat(
    sweep: Sweep,
    problem: Problem,
    settings: list[Setting],
    keys: list[str],
    others: list[str],
    several: bool,
) -> Heat:
    across, up = keys
    places = {each.number: (each.values[across], each.values[up]) for each in settings}
    spreads = {places[s.number]: s.spread(sweep.metric.shown) for s in settings}
    return Heat(
        across=across,
        up=up,
        metric=sweep.metric.shown,
        data=problem.data,
        others=labels.label(settings[0].values, others) if several else "",
        columns=_values(settings, across),
        rows=_values(settings, up),
        cells={place: found for place, found in spreads.items() if found},
        best=places.get(problem.best.number) if problem.best else None,
        chosen=sweep.metric.chosen or "",
    )


def _is_grid(settings: list[Setting], across: str, up: str) -> bool:
    """Whether at least half of all pairs of values were tried: a search at random is no grid."""
    columns, rows = len(_values(settings, across)), len(_values(settings, up))
    return columns > 1 and rows > 1 and 2 * len(settings) >= columns * rows


def _values(settings: list[Setting], key: str) -> list[Value]:
    numbers = (v for s in settings if isinstance(v := s.values[key], int | float))
    return [*sorted(set(numbers))]
