"""Learning curves of the best, the worst and plain training; of others, where one asks for them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from lit_adv.levels import ACCORDANCE
from lit_adv.reports import logs
from lit_adv.reports.logs import Points
from lit_adv.reports.pictures.scale import Scale, around
from lit_adv.reports.pictures.styles import PLAIN, SERIES, Style
from lit_adv.reports.setting import Setting
from lit_adv.reports.sweep import Problem, Sweep, ranked

MOST = 60
"""Settings that can be asked for: what a page can hold."""

PREFERRED = tuple(sorted(ACCORDANCE, key="accordance/validation".__ne__))
"""Of several series of accordance the first of these is shown: what Flooding-X goes by."""


@dataclass(frozen=True)
class Curve:
    """One setting, the mean of its runs at the steps that all of them logged.

    Args:
        number: of the setting.
        name: of the setting.
        role: why it is shown from the start; empty where it is not.
        style: of its lines.
        train: (step, training loss), means of stretches.
        validation: (step, validation loss).
        accordance: (step, accordance).
        level: flood level, the mean of its runs; None = not flooded.
        since: the step that the last of its runs was flooded from.
    """

    number: int
    name: str
    role: str
    style: Style
    train: Points
    validation: Points
    accordance: Points
    level: float | None
    since: int


@dataclass(frozen=True)
class Losses:
    """The picture's figures.

    Args:
        data: name of the texts, where there are several.
        curves: those shown from the start first.
        accordance: name of the series that is shown, or empty.
        left_out: settings with curves that are not among them.
    """

    data: str
    curves: list[Curve]
    accordance: str
    left_out: int

    @property
    def shown(self) -> list[Curve]:
        """Those shown from the start."""
        return [curve for curve in self.curves if curve.role]

    def steps(self) -> Scale:
        """From the start to the last step of any curve."""
        last = max(x for curve in self.curves for x, _ in _losses(curve))
        return Scale(0, max(last, 1))

    def heights(self) -> Scale:
        """Losses of those shown from the start, and of the usual one among the others."""
        tops = [max(y for _, y in _losses(curve)) for curve in self.curves if not curve.role]
        values = [y for curve in self.shown for _, y in _losses(curve)]
        values += [median(tops)] if tops else []
        values += [curve.level for curve in self.shown if curve.level is not None]
        found = around(values)
        return Scale(max(0, found.low), found.high) if min(values) >= 0 else found

    def accordances(self) -> Scale:
        """With 0 among them: the sign is what counts."""
        values = [y for curve in self.curves for _, y in curve.accordance]
        return around([0, *values], margin=0.08)


def find(sweep: Sweep, problem: Problem) -> list[Losses]:
    """The picture, where at least one of the settings has a loss to show."""
    roles = _roles(sweep, problem)
    order = ranked(problem.settings, sweep.metric)
    order += [s for s in problem.settings if s not in order]
    first = [s for s in order if s.number in roles]
    others = [s for s in order if s.number not in roles]
    kept = max(MOST - len(first), 1)
    step = max(1, -(-len(others) // kept))  # from the best to the worst, evenly
    asked = [*first, *others[::step]]

    logged = {s.number: [logs.read(run.folder) for run in s.runs] for s in asked}
    names = {name for runs in logged.values() for run in runs for name in run}
    accordance = next((name for name in PREFERRED if name in names), "")
    curves = [_curve(s, sweep, roles, logged[s.number], accordance) for s in asked]
    curves = [curve for curve in curves if _losses(curve)]
    if not curves:
        return []
    if not any(curve.role for curve in curves):
        curves[0] = _as_first(curves[0])
    curves.sort(key=lambda curve: (not curve.role, curve.number))
    return [Losses(problem.data, curves, accordance, len(problem.settings) - len(asked))]


def _roles(sweep: Sweep, problem: Problem) -> dict[int, str]:
    """Numbers of the settings that are shown from the start, and why."""
    best, worst = problem.best, problem.worst
    if best is None or worst is None:
        return {}
    others = (base for base in sweep.baselines.values() if base in problem.settings)
    base = sweep.baselines.get(best.number) or next(others, None)
    found = {best.number: [f"best by {sweep.metric.chosen}"]}
    if base is not None:
        found.setdefault(base.number, []).append("baseline")
    if worst is not best:
        found.setdefault(worst.number, []).append(f"worst by {sweep.metric.chosen}")
    return {number: ", ".join(said) for number, said in found.items()}


def _curve(
    setting: Setting,
    sweep: Sweep,
    roles: Mapping[int, str],
    runs: list[dict[str, dict[int, float]]],
    accordance: str,
) -> Curve:
    def series(name: str) -> Points:
        return logs.mean([run[name] for run in runs if name in run])

    role = roles.get(setting.number, "")
    levels = [run.level for run in setting.runs if run.level is not None]
    return Curve(
        number=setting.number,
        name=sweep.label(setting),
        role=role,
        style=_style(setting.number, role),
        train=logs.stretches(series("train/loss")),
        validation=logs.some(series("val/loss")),
        accordance=logs.some(series(accordance)) if accordance else [],
        level=sum(levels) / len(levels) if levels else None,
        since=max((run.since for run in setting.runs), default=0),
    )


def _style(number: int, role: str) -> Style:
    if role.startswith("best"):
        return SERIES[0]
    if role.startswith("baseline"):
        return PLAIN
    return SERIES[1] if role else SERIES[2 + number % (len(SERIES) - 2)]


def _as_first(curve: Curve) -> Curve:
    return replace(curve, role="first", style=SERIES[0])


def _losses(curve: Curve) -> Points:
    return [*curve.train, *curve.validation]
