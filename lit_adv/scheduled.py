"""Scheduled: the optimizer and its learning rate, which manual optimisation leaves to us."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_adv.descent import Descent, decay_groups
from lit_adv.evaluated import Evaluated
from lit_adv.tasks.task import Task


class Scheduled(Evaluated):
    """Builds optimizer and schedule from a Descent, and advances the schedule when asked to.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
    """

    def __init__(self, task: Task, descent: Descent | None = None) -> None:
        super().__init__(task)
        self.descent = descent or Descent()
        self._total_steps = 0

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

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizer = self.descent.optimizer(decay_groups(self))
        epochs, self._total_steps = self.trainer.max_epochs or 1, self.total_steps
        return [optimizer], [self.descent.schedule.build(optimizer, self._total_steps, epochs)]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training: Trainer's limits over the accumulation."""
        stepping = self.trainer.estimated_stepping_batches  # also sets up the data
        batches, epochs = self.trainer.num_training_batches, self.trainer.max_epochs
        if self.trainer.max_steps >= 0 and (not epochs or epochs < 0 or batches == float("inf")):
            return self.trainer.max_steps
        if stepping == float("inf") or not epochs:
            raise ValueError("trainer.max_epochs=-1: set max_epochs or max_steps for the schedule")
        steps = -(-int(batches) // self.descent.accumulate_grad_batches) * epochs
        return steps if self.trainer.max_steps < 0 else min(steps, self.trainer.max_steps)
