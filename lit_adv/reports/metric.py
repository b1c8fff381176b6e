"""Which metric a report is of, and which one its best settings are chosen by."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lit_adv import better
from lit_adv.reports.run import Run

TASKS_OWN = ("accuracy", "pearson", "loss")
"""Where a configuration names no metric, the task monitors the first of these that it has."""


@dataclass(frozen=True)
class Metric:
    """What is reported, and by what is chosen.

    Args:
        shown: such as `test/accuracy`.
        chosen: a metric of the validation split, such as `val/accuracy`; None = there is none, and
            nothing is chosen.
    """

    shown: str
    chosen: str | None

    @property
    def less(self) -> bool:
        """Whether less of what is shown is better."""
        return better.less(self.shown)


def choose(runs: Sequence[Run], asked: str | None) -> Metric:
    """The metric that was asked for, or that the runs themselves go by: on the test split.

    Args:
        runs: all of them.
        asked: a metric, with or without its split.

    Raises:
        ValueError: no finished run has it, or no two of several have any metric in common.
    """
    finished = [run for run in runs if run.state == "ok"]
    known = {name for run in finished for name in run.metrics}
    own = _own(finished, known)
    named = asked or _named(finished)
    if named is None or named.startswith("val/") and not asked:
        named = (named or own).rpartition("/")[2]
    shown = named if "/" in named else _on_test(named, known)
    if finished and shown not in known:
        key = "--metric" if asked else "optimized_metric or monitor"
        there = ", ".join(sorted(known)) or "none at all"
        raise ValueError(f"{key}={asked or shown}: no run has it; those there are: {there}")
    if len(finished) > 1 and len(known) == sum(len(run.metrics) for run in finished):
        raise ValueError(
            f"{finished[0].name} and {len(finished) - 1} more: no two of these runs have a metric "
            "in common, so there is nothing to compare; give the folders of one task"
        )
    split, _, name = shown.partition("/")
    # accuracy under attack is measured once, at the end: the run's own metric has to choose
    chosen = f"val/{own}" if split == "attack" else f"val/{name}"
    return Metric(shown, chosen if chosen in known or not finished else None)


def _own(finished: Sequence[Run], known: set[str]) -> str:
    """The name of the metric that the runs' own choice of checkpoints goes by."""
    named = [run.monitor for run in finished if (run.monitor or "").startswith(("val/", "test/"))]
    names = [str(each).partition("/")[2] for each in named]
    names += [name for name in TASKS_OWN if f"val/{name}" in known or f"test/{name}" in known]
    return names[0] if names else TASKS_OWN[0]


def _named(runs: Sequence[Run]) -> str | None:
    """The metric that most configurations name, of those that their runs have."""
    counts = Counter(run.monitor for run in runs if run.monitor in run.metrics)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None


def _on_test(name: str, known: set[str]) -> str:
    """This metric on the test split; on the validation split where only that has it."""
    val, test = f"val/{name}", f"test/{name}"
    return val if val in known and test not in known else test
