"""Where a run without flooding turned: its lowest validation loss, and its training loss there."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from omegaconf import OmegaConf

Rows: TypeAlias = list[dict[str, str]]
"""Of a run's metrics.csv, in their order; what was not logged in a row is empty."""

Found = TypeVar("Found")

NO_FLOOD = "lit_adv.flood.none.NoFlood"


@dataclass(frozen=True)
class Turn:
    """The validation after which the validation loss only lay higher.

    Args:
        step: optimizer step after which it was made, counted from 0 as in metrics.csv.
        validation_loss: there, in the loss's unit.
        training_loss: mean over the stretch of training that this validation ended, from the one
            before it: as coarse as `trainer.val_check_interval`.
        epoch: that the step belongs to, counted from 0.
    """

    step: int
    validation_loss: float
    training_loss: float
    epoch: int


def read(run: str | Path, look: Callable[[Rows], Found]) -> Found:
    """What a look at the metrics of a run without flooding finds.

    Args:
        run: its folder.
        look: from the rows of its metrics.csv to what is sought in them, such as `find`.

    Raises:
        ValueError: the folder is not that of such a run, or the look finds nothing.
    """
    try:
        return look(_rows(Path(run)))
    except ValueError as error:
        raise ValueError(f"flood.run={run}: {error}") from error


def find(rows: Rows) -> Turn:
    """The turn of a run.

    Raises:
        ValueError: the validation loss never turned, or there is no training loss to go with it.
    """
    validation = series(rows, "val/loss")
    if not validation:
        raise ValueError("no val/loss in its metrics.csv; give a run with a validation set")
    steps = sorted(validation)
    step = min(reversed(steps), key=validation.__getitem__)  # of equal ones the last
    if step == steps[-1]:
        raise ValueError(
            f"the validation loss never turned: the last one, {validation[step]:.4g} at step "
            f"{step}, is the lowest; train longer"
        )
    before = max((earlier for earlier in steps if earlier < step), default=-1)
    return Turn(step, validation[step], training_loss(rows, before, step), epoch(rows, step))


def series(rows: Rows, name: str) -> dict[int, float]:
    """The finite values of one metric by step.

    >>> series([{"step": "4", "val/loss": "0.5"}, {"step": "9", "val/loss": ""}], "val/loss")
    {4: 0.5}
    """
    # Of several rows of a step the last one counts: where batches are accumulated, the first of
    # them repeat the loss of the step before.
    logged = {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
    return {step: value for step, value in logged.items() if math.isfinite(value)}


def training_loss(rows: Rows, after: int, until: int) -> float:
    """Mean training loss of the steps after one and until another, of those that were logged.

    Raises:
        ValueError: none of them was.
    """
    logged = series(rows, "train/loss")
    if not logged:
        raise ValueError("no train/loss in its metrics.csv; train with trainer.log_every_n_steps=1")
    stretch = [loss for step, loss in logged.items() if after < step <= until]
    if not stretch:
        raise ValueError(
            f"no train/loss was logged after step {after} until step {until}; train with a lower "
            "trainer.log_every_n_steps"
        )
    return math.fsum(stretch) / len(stretch)


def epoch(rows: Rows, step: int) -> int:
    """The epoch that a step belongs to; 0 where none was logged."""
    return int(max((e for s, e in series(rows, "epoch").items() if s <= step), default=0))


def _rows(folder: Path) -> Rows:
    if not folder.is_dir():
        raise ValueError("no such folder")
    metrics, config = folder / "metrics.csv", folder / "config.yaml"
    if not metrics.is_file():
        raise ValueError("no metrics.csv in it; give the folder of a run with logger=csv")
    if config.is_file():  # which training in one's own code does not write
        flood = OmegaConf.select(OmegaConf.load(config), "flood._target_")
        if flood not in (None, NO_FLOOD):
            raise ValueError(
                f"it was flooded itself, by {flood}, so its training loss says nothing of a level; "
                "give a run with flood=none"
            )
    with metrics.open(newline="") as file:
        return list(csv.DictReader(file))
