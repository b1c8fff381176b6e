"""Searches of the tests: run in this process, read from their storage."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import pytest
from commandline import SMALL
from optuna.trial import FrozenTrial

from lit_adv.cli.train import main
from lit_adv.sweeps.storage import storage

OPTIONS = [
    *SMALL,
    "hydra/sweeper=optuna",
    "flood=fixed",
]


class Killed(BaseException):
    """As abrupt as SIGKILL, as far as one process can be to itself."""


class KillOnce(L.Callback):
    """Ends the process at a step, if a file is there; takes the file away."""

    def __init__(self, file: str, step: int) -> None:
        self.file, self.step = Path(file), step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step and self.file.exists():
            self.file.unlink()
            raise Killed


def search(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> None:
    """`python train.py -m hydra/sweeper=optuna ...` in this folder."""
    places = [f"hydra.sweep.dir={folder}", f"data.cache={folder.parent}"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *OPTIONS, *overrides, *places])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    main()


def study(folder: Path) -> optuna.Study:
    """The study in a search's folder."""
    return optuna.load_study(study_name="search", storage=storage(str(folder / "study.journal")))


def told(folder: Path) -> list[tuple[Any, ...]]:
    """What each trial was of, and what came of it."""
    return [what(trial) for trial in study(folder).trials]


def what(trial: FrozenTrial) -> tuple[Any, ...]:
    """What a trial was of, and what came of it."""
    return trial.number, trial.state.name, trial.value, trial.params
