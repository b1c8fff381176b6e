"""The objective of a search: which metric of a run it goes by, and which way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from omegaconf import DictConfig
from optuna.trial import TrialState

from lit_adv import better
from lit_adv.reports import metric as metrics
from lit_adv.reports.reading import read
from lit_adv.reports.run import Run
from lit_adv.sweeps import outcome

Direction: TypeAlias = Literal["minimize", "maximize"]

STATES = {
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "missing": TrialState.RUNNING,
}
"""Of trials whose runs have no results."""


@dataclass(frozen=True)
class Objective:
    """What a search goes by.

    Args:
        metric: such as `val/accuracy`; None = the task's own.
        direction: in which it is better.
    """

    metric: str | None
    direction: Direction

    def outcome(self, folder: Path) -> tuple[TrialState, float | None]:
        """The state of the trial whose run is in this folder, and its value if it has one."""
        state = outcome.state(folder)
        if state != "finished":
            return STATES[state], None
        value = self._value(read(folder, folder.name))
        return (TrialState.FAIL if value is None else TrialState.COMPLETE), value

    def _value(self, run: Run) -> float | None:
        if not run.metrics:  # none that is finite
            return None
        name = self.metric or metrics.choose([run], None).chosen
        return None if name is None else run.metrics.get(name)


def objective(config: DictConfig, direction: Direction | None) -> Objective:
    """The objective of runs with this configuration.

    Args:
        config: composed.
        direction: None = the one in which the metric is better. What tasks monitor of their own
            accord is better the more there is of it.
    """
    metric = config.optimized_metric or config.monitor
    less = metric is not None and better.less(metric)
    return Objective(metric, direction or ("minimize" if less else "maximize"))
