"""A metric over one swept number: mean, spread and single runs, plain training, the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_adv.reports import labels
from lit_adv.reports.axes import numeric
from lit_adv.reports.pictures.scale import factors
from lit_adv.reports.setting import Setting
from lit_adv.reports.spread import Spread
from lit_adv.reports.sweep import Problem, Sweep, ranked

MOST_LINES = 6


@dataclass(frozen=True)
class Line:
    """Settings that differ in the swept number alone.

    Args:
        name: what they have alike; empty where all are of one line.
        means: (number, spread over seeds), by number.
        dots: (number, value, words) of every single run.
    """

    name: str
    means: list[tuple[float, Spread]]
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Over:
    """The picture's figures.

    Args:
        key: that was swept.
        metric: upwards.
        data: name of the texts, where there are several.
        log: whether the key was swept by equal factors.
        lines: of the metric.
        left_out: how many lines there are beside.
        validation: (number, mean of the metric that is chosen by), where there is one line.
        chosen: name of that metric.
        plain: what settings are compared with: its name and the metric's spread.
        best: (number, mean) of the best setting by validation, and in words.
    """

    key: str
    metric: str
    data: str
    log: bool
    lines: list[Line]
    left_out: int
    validation: list[tuple[float, float]]
    chosen: str
    plain: tuple[str, Spread] | None
    best: tuple[float, float, str] | None

    @property
    def scattered(self) -> bool:
        """Whether so much else differs that no line would mean anything."""
        return not self.lines[0].means


def find(sweep: Sweep, problem: Problem) -> list[Over]:
    """A picture for every number that was swept."""
    swept = [key for key in sweep.axes if numeric(key, problem.settings)]
    found = (_over(sweep, problem, key) for key in swept)
    return [each for each in found if each]


def _over(sweep: Sweep, problem: Problem, key: str) -> Over | None:
    shown, chosen = sweep.metric.shown, sweep.metric.chosen
    settings = [s for s in problem.settings if key in s.values and s.spread(shown)]
    if len({s.values[key] for s in settings}) < 2:
        return None
    others = [axis for axis in sweep.axes if axis != key]
    groups: dict[tuple[object, ...], list[Setting]] = {}
    for each in settings:
        groups.setdefault(tuple(each.values.get(axis) for axis in others), []).append(each)
    order = {s.number: place for place, s in enumerate(ranked(settings, sweep.metric))}
    lines = [members for members in groups.values() if len(members) > 1]
    lines.sort(key=lambda members: min(order.get(s.number, len(order)) for s in members))
    telling = [axis for axis in others if len({s.values.get(axis) for s in settings}) > 1]
    dots = [dot for each in settings for dot in _dots(each, key, shown)]

    if 2 * sum(map(len, lines)) < len(settings):  # a random search: hardly two runs on one line
        drawn, left_out = [Line("", [], dots)], 0
    else:
        drawn = [_line(members, key, shown, telling) for members in lines[:MOST_LINES]]
        left_out = len(groups) - len(drawn)
    validation: list[tuple[float, float]] = []
    if len(groups) == 1 and chosen and chosen != shown:
        means = sorted((_number(s, key), found) for s in settings if (found := s.spread(chosen)))
        validation = [(x, found.mean) for x, found in means]
    return Over(
        key=key,
        metric=shown,
        data=problem.data,
        log=factors([_number(s, key) for s in settings]),
        lines=drawn,
        left_out=left_out,
        validation=validation,
        chosen=chosen or "",
        plain=_plain(sweep, settings),
        best=_best(sweep, problem, key),
    )


def _line(members: list[Setting], key: str, metric: str, telling: list[str]) -> Line:
    found = sorted(members, key=lambda each: _number(each, key))
    means = [(_number(s, key), spread) for s in found if (spread := s.spread(metric))]
    dots = [dot for each in found for dot in _dots(each, key, metric)]
    return Line(labels.label(members[0].values, telling) if telling else "", means, dots)


def _dots(setting: Setting, key: str, metric: str) -> list[tuple[float, float, str]]:
    x = _number(setting, key)
    said = f"#{setting.number}: {key} = {labels.value(setting.values[key])}"
    return [
        (x, value, f"{said}, seed {seed}: {labels.figure(value)}")
        for seed, value in setting.by_seed(metric).items()
    ]


def _plain(sweep: Sweep, settings: Sequence[Setting]) -> tuple[str, Spread] | None:
    """What these settings are compared with, if that is one and the same for all of them."""
    bases = {b.number: b for s in settings if (b := sweep.baselines.get(s.number))}
    if len(bases) != 1:
        return None
    (base,) = bases.values()
    found = base.spread(sweep.metric.shown)
    return (sweep.label(base), found) if found else None


def _best(sweep: Sweep, problem: Problem, key: str) -> tuple[float, float, str] | None:
    best = problem.best
    if best is None or key not in best.values:
        return None
    found = best.spread(sweep.metric.shown)
    if found is None:
        return None
    said = f"{sweep.label(best)}: {labels.spread(found)}"
    return _number(best, key), found.mean, said


def _number(setting: Setting, key: str) -> float:
    value = setting.values[key]
    assert isinstance(value, int | float)
    return float(value)
