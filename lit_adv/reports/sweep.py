"""A sweep: its runs by settings, what was swept, what each is compared with, which is best."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_adv import better
from lit_adv.reports import axes, baselines
from lit_adv.reports import metric as metrics
from lit_adv.reports import setting as grouping
from lit_adv.reports.labels import label
from lit_adv.reports.metric import Metric
from lit_adv.reports.run import Run
from lit_adv.reports.setting import Setting
from lit_adv.reports.settings import is_plain
from lit_adv.reports.spread import Difference, difference


@dataclass(frozen=True)
class Problem:
    """The settings that are tested on the same texts: only these are compared.

    Args:
        data: their name; empty where all runs are tested on the same ones.
        settings: in the order of their numbers.
        best: that of the best mean of the metric that is chosen by, on the validation split; None
            where no setting has it.
        worst: the same of the worst.
    """

    data: str
    settings: list[Setting]
    best: Setting | None
    worst: Setting | None


@dataclass(frozen=True)
class Sweep:
    """All there is to report.

    Args:
        runs: in the order of their folders.
        settings: numbered, plain fine-tuning first.
        axes: keys that tell settings apart.
        metric: that is reported.
        baselines: number of a setting -> what it is compared with, if that is another one.
        problems: the settings by the texts that they are tested on.
    """

    runs: list[Run]
    settings: list[Setting]
    axes: list[str]
    metric: Metric
    baselines: dict[int, Setting]
    problems: list[Problem]

    def label(self, setting: Setting) -> str:
        """What a setting is, as far as it differs from others."""
        return label(setting.values, self.axes)

    def difference(self, setting: Setting) -> Difference | None:
        """How far a setting lies above its baseline, in the metric that is shown."""
        base = self.baselines.get(setting.number)
        if base is None:
            return None
        shown = self.metric.shown
        return difference(setting.by_seed(shown), base.by_seed(shown))


def sweep(runs: Sequence[Run], asked: str | None = None) -> Sweep:
    """What these runs are together.

    Args:
        runs: all that were found.
        asked: the metric to report; None = what the runs go by.

    Raises:
        ValueError: see `metric.choose`.
    """
    metric = metrics.choose(runs, asked)
    found = grouping.group(runs)
    swept = axes.axes(found, runs)
    found.sort(key=lambda each: _order(each, swept))
    settings = grouping.numbered(found)
    compared = ((each.number, baselines.baseline(each, settings)) for each in settings)
    return Sweep(
        runs=list(runs),
        settings=settings,
        axes=swept,
        metric=metric,
        baselines={number: b for number, b in compared if b is not None and b.number != number},
        problems=_problems(settings, metric),
    )


def ranked(settings: Sequence[Setting], metric: Metric) -> list[Setting]:
    """Those with a validation metric, best first; of equal ones the first by number."""
    if metric.chosen is None:
        return []
    means = [(each, each.spread(metric.chosen)) for each in settings]
    sign = 1 if better.less(metric.chosen) else -1
    known = [(sign * found.mean, each.number, each) for each, found in means if found]
    return [each for _, _, each in sorted(known, key=lambda entry: entry[:2])]


def _problems(settings: list[Setting], metric: Metric) -> list[Problem]:
    by_data: dict[tuple[object, ...], list[Setting]] = {}
    for each in settings:
        by_data.setdefault(grouping.data(each), []).append(each)
    problems = []
    for members in by_data.values():
        order = ranked(members, metric)
        name = str(members[0].values.get("data", "data")) if len(by_data) > 1 else ""
        problems.append(
            Problem(name, members, order[0] if order else None, order[-1] if order else None)
        )
    return problems


def _order(setting: Setting, swept: list[str]) -> tuple[object, ...]:
    values = tuple(grouping.order(setting.values.get(key)) for key in swept)
    rest = sorted((key, grouping.order(value)) for key, value in setting.identity)
    return not is_plain(setting.values), values, rest
