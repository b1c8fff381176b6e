"""Scheduled: optimizer, learning rate and counted steps, which manual optimisation leaves to us."""

from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_adv.descent import Descent, decay_groups
from lit_adv.evaluated import Evaluated
from lit_adv.tasks.task import Task


class Scheduled(Evaluated):
    """Builds optimizer and schedule from a Descent; steps, counts, and advances the schedule.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
    """

    def __init__(self, task: Task, descent: Descent | None = None) -> None:
        super().__init__(task)
        self.descent = descent or Descent()
        self.skipped_steps = 0
        """Optimizer steps not taken because the loss scale of float16 had overflowed."""
        self.total_steps = 0
        """Optimizer steps of the whole training; known once there is an optimizer."""

    @property
    def steps_taken(self) -> int:
        """Optimizer steps that moved the weights: what schedules, masks and attacks go by."""
        return self.trainer.global_step - self.skipped_steps

    def take_step(self, *, counted: bool = True) -> bool:
        """Step the optimizer, and empty the gradients; returns whether the weights moved.

        Args:
            counted: whether it is the step that an effective batch counts as.
        """
        optimizer, scaler = self.optimizers(), self._scaler
        assert isinstance(optimizer, LightningOptimizer)
        scale = 0.0 if scaler is None else scaler.get_scale()
        if counted:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        # Autocast may keep half-precision copies of the weights as they were before the step.
        torch.clear_autocast_cache()
        optimizer.zero_grad()
        # The scaler waits for the device anyway, and lowers its scale where it has skipped a step.
        taken = scaler is None or scaler.get_scale() >= scale
        self.skipped_steps += counted and not taken
        return taken

    def schedule(self, interval: str, count: int) -> None:
        """Advance the learning rate, if this many steps (or epochs) say so."""
        schedule, scheduler = self.descent.schedule, self.lr_schedulers()
        if schedule.interval != interval or count % schedule.frequency:
            return
        if isinstance(scheduler, ReduceLROnPlateau):
            if schedule.monitor in self.trainer.callback_metrics:
                scheduler.step(self.trainer.callback_metrics[schedule.monitor])
        else:
            assert isinstance(scheduler, LRScheduler)
            scheduler.step()

    def setup(self, stage: str) -> None:
        if stage == "fit":
            # Trainer refuses it from users of manual optimisation, but counts by it: the steps of a
            # training, the x axis of loggers, where a validation falls into a window.
            self.trainer.accumulate_grad_batches = self.descent.accumulate_grad_batches

    def teardown(self, stage: str) -> None:
        if stage == "fit":
            self.trainer.accumulate_grad_batches = 1

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizer = self.descent.optimizer(decay_groups(self))
        self.total_steps = self._count_steps()
        epochs = self.trainer.max_epochs or 1
        return [optimizer], [self.descent.schedule.build(optimizer, self.total_steps, epochs)]

    def _count_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches  # also sets up the data
        if not 0 <= steps < float("inf"):
            raise ValueError(
                "trainer.max_epochs, trainer.max_steps: the schedule needs to know the number of "
                "steps; set max_steps (or max_epochs, for data with a length)"
            )
        return int(steps)

    @property
    def _scaler(self) -> Any:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler if scaler is not None and scaler.is_enabled() else None
