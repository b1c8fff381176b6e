"""Loop: what Lightning's automatic optimisation would do, by hand and per effective batch."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_adv.descent import Descent, decay_groups
from lit_adv.finite import FirstNonFinite
from lit_adv.tasks.task import Batch, Task
from lit_adv.window import Window


class Loop(L.LightningModule):
    """Effective batches, steps, schedules, evaluation and checkpoints: no word of perturbations.

    Args:
        task: the network and its losses.
        descent: how the weights descend.

    Raises:
        ValueError: the flood level is not below the loss of a predictor that ignores its input.
    """

    def __init__(self, task: Task, descent: Descent | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.descent = descent or Descent()
        self._check_level()

        self.val_metrics = task.metrics().clone(prefix="val/")
        self.test_metrics = task.metrics().clone(prefix="test/")
        self._window: Window | None = None
        self._finite = FirstNonFinite()
        self._total_steps = 0

    def forward(self, batch: Batch) -> Tensor:
        return self.task(batch)

    # ---- the step --------------------------------------------------------------------------------

    @property
    def window(self) -> Window:
        """The effective batch: `accumulate_grad_batches` batches, fewer at an epoch's end."""
        if self._window is None:
            left = self.trainer.num_training_batches - self.trainer.fit_loop.batch_idx
            size = int(min(self.descent.accumulate_grad_batches, left))
            weights = [weight for weight in self.task.parameters() if weight.requires_grad]
            self._window = Window(size, self.descent.flood, weights, self.manual_backward)
        return self._window

    def finish(self) -> None:
        """At the end of the effective batch: clip, step, schedule, let the reference follow."""
        window = self.window
        if not window.full:
            return
        self.log("train/loss", window.loss, prog_bar=True)
        if self.descent.flood.of is not None:
            self.log("flood/share", window.flooded)
        self._finite.watch(window.loss, self.trainer.global_step)
        self._window = None

        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step()  # clips in on_before_optimizer_step
        # Autocast may keep half-precision copies of the weights as they were before the step.
        torch.clear_autocast_cache()
        optimizer.zero_grad()
        self._schedule("step", self.trainer.global_step)
        self.descent.proximal.follow(self.task, self.trainer.global_step, self._total_steps)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Here, not before step(): half-precision gradients are unscaled only from this hook on.
        if self.descent.gradient_clip_val is not None:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.descent.gradient_clip_val,
                gradient_clip_algorithm=self.descent.gradient_clip_algorithm,
            )

    def _schedule(self, interval: str, count: int) -> None:
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
        optimizer = self.descent.optimizer(decay_groups(self.task))
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

    # ---- the rest of Lightning's loop ------------------------------------------------------------

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            # The flood's slope and the mean of uneven batches would be those of each process alone.
            raise ValueError(
                f"trainer.devices: {self.trainer.world_size} processes are not supported yet; set 1"
            )
        self._finite = FirstNonFinite(self.device)
        self._window = None
        self.zero_grad()  # a training broken off may have left the gradient of half a window
        if self.descent.proximal.weight:
            self.descent.proximal.begin(self.task)

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        self._schedule("epoch", self.current_epoch + 1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and batch_idx % every == 0:
            self._check_finite()

    def on_validation_model_zero_grad(self) -> None:
        # Lightning does not know of windows: an open one keeps its gradient over a validation.
        if self._window is None:
            super().on_validation_model_zero_grad()

    def on_validation_start(self) -> None:
        self._check_finite()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics, "val/loss")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics, "test/loss")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.task(batch)

    def _evaluate(self, batch: Batch, metrics: Any, name: str) -> None:
        logits = self.task(batch)
        losses = self.task.losses(logits, batch)
        metrics.update(logits.float(), batch["labels"])
        self.log(name, losses.mean(), batch_size=len(losses), prog_bar=True)
        self.log_dict(metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_finite()
        state = {"method": type(self).__name__, "proximal": self.descent.proximal.state_dict()}
        checkpoint["lit_adv"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.descent.proximal.load_state_dict(checkpoint["lit_adv"]["proximal"])

    def _check_finite(self) -> None:
        self._finite.check(self.trainer.num_training_batches, self.descent.accumulate_grad_batches)

    def _check_level(self) -> None:
        level, chance = self.descent.flood.level, self.task.chance_loss
        if level is not None and chance is not None and level >= chance:
            raise ValueError(
                f"flood.b={level}: not below {chance:.3f}, the loss of a predictor that ignores "
                "its input, so there would be nothing to learn; choose a lower level"
            )
