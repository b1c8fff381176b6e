"""Pruning: ends the training of a trial that has no hope of being the best of its search."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from lit_adv.sweeps import trial as trials
from lit_adv.sweeps.trial import Pruned, Trial


def asked(folder: Path, monitor: str) -> list[L.Callback]:
    """The pruning that a search has asked the run of this folder for.

    Args:
        folder: of the run.
        monitor: the metric that its best checkpoint is chosen by.
    """
    trial = trials.read(folder)
    return [] if trial is None else [Pruning(trial, monitor)]


class Pruning(L.Callback):
    """Reports the metric to the study after each validation, and ends the training if told to.

    The first process decides, all end. The last validation ends nothing: the run is as good as
    done. A trial that the study knows to have ended is left alone.

    Args:
        trial: of which study.
        monitor: the metric, if the search leaves it to the task.

    Raises:
        Pruned: the best value so far is worse than the median of other trials at this validation.
        ValueError: validation does not give this metric.
    """

    def __init__(self, trial: Trial, monitor: str) -> None:
        self.trial = trial
        split, _, name = (trial.metric or monitor).partition("/")
        self.metric = f"val/{name}" if split == "test" else f"{split}/{name}"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.metric)
        if value is None:
            raise ValueError(
                f"hydra.sweeper.pruning: validation does not give {self.metric}, which the search "
                "goes by; hydra.sweeper.pruning=null"
            )
        reason = self._judge(trainer, float(value)) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            raise Pruned(reason)

    @cached_property
    def _study(self) -> Any:
        from lit_adv.sweeps import storage  # here: few runs need Optuna

        return storage.joined(self.trial)

    def _judge(self, trainer: L.Trainer, value: float) -> str | None:
        """Report the value; returns why the training ends here, if it does."""
        from optuna.study import StudyDirection
        from optuna.trial import TrialState

        from lit_adv.sweeps import storage

        mine = self._study.get_trials(deepcopy=False)[self.trial.number]
        if mine.state != TrialState.RUNNING:
            return None
        live, number, epochs = storage.live(self._study, mine), validation(trainer), ended(trainer)
        values = {number: value, **mine.intermediate_values}
        if number not in mine.intermediate_values:  # a run that goes on repeats its last one
            live.report(value, number)
        enough = epochs > self.trial.pruning.warmup_epochs
        last = epochs >= (trainer.max_epochs or 0) > 0
        if last or not enough or not live.should_prune():
            return None
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [each.intermediate_values.get(number) for each in complete]
        found = [each for each in others if each is not None]
        less = self._study.direction == StudyDirection.MINIMIZE
        return reason(self.metric, epochs, list(values.values()), found, less=less)


def reason(
    metric: str, epochs: float, values: Sequence[float], others: Sequence[float], *, less: bool
) -> str:
    """Why a training is pruned, in one line.

    Args:
        metric: that its search goes by.
        epochs: that are over.
        values: of the metric so far.
        others: what other trials had at the same validation.
        less: whether the search looks for less of it.

    >>> reason("val/accuracy", 2, [0.5, 0.61], [0.7, 0.72, 0.9], less=False)
    'pruned after epoch 2: val/accuracy 0.6100 at best is below 0.7200, the median of 3 others'
    """
    after = f"epoch {epochs:.0f}" if epochs == int(epochs) else f"{epochs:.2f} epochs"
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return f"pruned after {after}: {metric} is no number"
    best, side = (min(known), "above") if less else (max(known), "below")
    return (
        f"pruned after {after}: {metric} {best:.4f} at best is {side} {median(others):.4f}, the "
        f"median of {len(others)} others"
    )


def ended(trainer: L.Trainer) -> float:
    """Epochs of training that are over, with the part of the one at hand."""
    batches = trainer.num_training_batches
    part = (trainer.fit_loop.epoch_loop.batch_idx + 1) / batches
    return trainer.current_epoch + (1.0 if batches == float("inf") else part)


def validation(trainer: L.Trainer) -> int:
    """Which validation of the training this is, from 1; after a resume as before."""
    done, every = trainer.fit_loop.epoch_loop, trainer.val_check_batch
    if every is None or every == float("inf"):  # by the clock; at the ends of epochs
        return trainer.current_epoch + 1
    if trainer.check_val_every_n_epoch is None:
        return int((done.total_batch_idx + 1) // every)
    before = trainer.current_epoch * (trainer.num_training_batches // every)
    return int(before + (done.batch_idx + 1) // every)
