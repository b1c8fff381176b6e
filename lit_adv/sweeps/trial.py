"""trial.json: how a run takes part in a search that prunes, in its folder while it is at work.

In a file, not in the run's configuration: it is no setting that two runs could differ in.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "trial.json"


class Pruned(ValueError):
    """A run of a search ended early, for the values that it had: others do better with theirs."""


@dataclass(frozen=True)
class Pruning:
    """When hopeless runs end: at validations where their best so far is below the others' median.

    Args:
        startup_trials: so many trials have to be complete before.
        warmup_epochs: no run ends before these are over.
    """

    startup_trials: int = 5
    warmup_epochs: int = 1


@dataclass(frozen=True)
class Trial:
    """A run's place in a study.

    Args:
        storage: see `study.storage`.
        study: its name there.
        number: of the trial.
        metric: what the search goes by; None = the task's own.
        pruning: when it ends early.
    """

    storage: str
    study: str
    number: int
    metric: str | None
    pruning: Pruning


def note(folder: Path, trial: Trial | None) -> None:
    """Tell the run of this folder which trial it is; None = none, or no longer one."""
    if trial is None:
        (folder / NAME).unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(json.dumps(asdict(trial), indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Trial | None:
    """What the run of this folder has been told; None = it is a trial of nothing that prunes."""
    if not (folder / NAME).exists():
        return None
    told = json.loads((folder / NAME).read_text(encoding="utf-8"))
    return Trial(**{**told, "pruning": Pruning(**told["pruning"])})
