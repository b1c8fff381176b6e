"""FineTuner: plain fine-tuning by manual optimisation, and the seams that all methods share."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, overload

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_adv import inject
from lit_adv.descent import Descent, decay_groups
from lit_adv.functional import ball
from lit_adv.tasks.task import Batch, Task
from lit_adv.window import Window


class FineTuner(L.LightningModule):
    """`theta <- theta - lr * grad mean_b l(f(x_b; theta), y_b)`: Lightning's loop, by hand.

    Every method is this module with another `training_step`: it looks for perturbations, adds
    training passes with `accumulate`, and ends with `descend`, which floods, clips, steps,
    schedules and lets the proximal reference follow, in that order. Cost of plain fine-tuning: one
    forward pass, one backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        same_dropout: all passes over a batch draw the same dropout masks.
    """

    def __init__(
        self, task: Task, descent: Descent | None = None, *, same_dropout: bool = True
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.descent = descent or Descent()
        self.same_dropout = same_dropout
        self._check_level()

        self.val_metrics = task.metrics().clone(prefix="val/")
        self.test_metrics = task.metrics().clone(prefix="test/")
        self._window: Window | None = None
        self._noise: torch.Generator | None = None
        self._noise_state: Tensor | None = None
        self._random_state: inject.RandomState | None = None
        self._bad_step = torch.tensor(-1)
        self._total_steps = 0

    # ---- what a method sees ----------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.logits(batch)
        self.descend(batch, self.task.losses(logits, batch), clean=logits)

    def forward(self, batch: Batch) -> Tensor:
        return self.task(batch)

    def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """`f(e + delta)`: the network's answer with the perturbation added to its embeddings."""
        if self._random_state is not None:
            self._random_state.rewind()
        with inject.perturbed(self.task.embeddings, delta):
            return self.task(batch)

    def losses(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """Loss of every example at the perturbed embeddings, [batch]."""
        return self.task.losses(self.logits(batch, delta), batch)

    def ascent(
        self, batch: Batch, delta: Tensor, objective: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Gradient with respect to delta of the SUM over examples, the weights standing still.

        Args:
            batch: the batch at hand.
            delta: perturbation, [batch, tokens, width].
            objective: from logits to [batch]; None = the task's losses.
        """
        with inject.frozen(self.task):
            logits = self.logits(batch, delta.requires_grad_())
        values = self.task.losses(logits, batch) if objective is None else objective(logits)
        return torch.autograd.grad(values.sum(), delta)[0]

    def zeros(self, batch: Batch) -> Tensor:
        """The perturbation that perturbs nothing, [batch, tokens, width]."""
        mask = self.task.mask(batch)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        return torch.zeros(*mask.shape, self.task.width, device=mask.device, dtype=dtype)

    def sample(
        self, batch: Batch, size: float, norm: ball.Norm = "l2", per: ball.Per = "example"
    ) -> Tensor:
        """Uniform noise inside the ball of this size, from a stream of its own."""
        return ball.sample(self.task.mask(batch), self.task.width, size, norm, per, self.noise)

    @contextmanager
    def passes(self):
        """All passes inside draw the same dropout masks (unless `same_dropout` is off)."""
        self._random_state = inject.RandomState(self.device) if self.same_dropout else None
        try:
            yield
        finally:
            self._random_state = None

    @overload
    def accumulate(self, losses: Tensor, share: float = 1.0) -> None: ...

    @overload
    def accumulate(self, losses: Tensor, share: float = 1.0, *, wrt: Tensor) -> Tensor: ...

    def accumulate(
        self, losses: Tensor, share: float = 1.0, *, wrt: Tensor | None = None
    ) -> Tensor | None:
        """Add the gradient of `share * losses` to the weights'; return delta's, which comes free.

        Delta's gradient is that of the unflooded losses, up to a positive factor.

        Args:
            losses: of one pass over the batch at hand, [batch]; more passes follow.
            share: weight of this pass in the step's objective.
            wrt: the perturbation whose gradient is wanted; None = nobody's.
        """
        self.window.accumulate(losses, share)
        if wrt is None:
            return None
        assert wrt.grad is not None, "the losses do not depend on the perturbation"
        # Overflow of the loss scale: the optimizer will skip this step; the adversary stays put.
        grad, wrt.grad = wrt.grad.nan_to_num(0, 0, 0), None
        if self.descent.flood.of == "example":
            # Below the level the weights climb; the adversary goes on climbing too.
            grad = self.descent.flood.slope(losses.detach()).view(-1, 1, 1) * grad
        return grad

    def descend(
        self,
        batch: Batch,
        losses: Tensor,
        *,
        share: float = 1.0,
        penalty: Tensor | None = None,
        clean: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> None:
        """The last training pass over a batch; at the end of the effective batch, the step.

        Args:
            batch: the batch at hand.
            losses: task losses of the pass, [batch].
            share: weight of this pass in the step's objective.
            penalty: what is descended beside them and never flooded, [batch].
            clean: logits at the clean inputs, with their graph, if the method has them.
            delta: the perturbation of this pass, for the log.
        """
        proximal = self.descent.proximal
        if proximal.weight:
            logits = self.logits(batch) if clean is None else clean
            divergence = proximal.divergence(self.task, batch, logits)
            self.log("proximal/divergence", divergence.detach().mean())
            held = proximal.weight * divergence
            penalty = held if penalty is None else penalty + held
        if delta is not None:
            self.log("perturbation/norm", ball.lengths(delta.detach()).mean())

        self.window.conclude(losses, share, penalty)
        if self.window.full:
            self._watch(self.window)
            self._window = None
            self._step()

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

    def _step(self) -> None:
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
        self._bad_step = torch.tensor(-1, device=self.device)
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
        checkpoint["lit_adv"] = {
            "method": type(self).__name__,
            "proximal": self.descent.proximal.state_dict(),
            "noise": self.noise.get_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["lit_adv"]
        self.descent.proximal.load_state_dict(state["proximal"])
        self._noise, self._noise_state = None, state["noise"]

    @property
    def noise(self) -> torch.Generator:
        """The stream that perturbation noise is drawn from: not dropout's, one per process."""
        if self._noise is None:
            self._noise = torch.Generator(self.device)
            self._noise.manual_seed(torch.initial_seed() % 2**62 + self.global_rank)
            if self._noise_state is not None:
                self._noise.set_state(self._noise_state)
        return self._noise

    def _watch(self, window: Window) -> None:
        loss = window.loss
        self.log("train/loss", loss, prog_bar=True)
        if self.descent.flood.of is not None:
            self.log("flood/share", window.flooded)
        # Without asking for the value: that would make the host wait for the device in every step.
        first = (self._bad_step < 0) & ~loss.isfinite()
        self._bad_step = torch.where(first, self.trainer.global_step, self._bad_step)

    def _check_finite(self) -> None:
        bad = int(self._bad_step)
        if bad >= 0:
            raise FloatingPointError(
                f"the training loss was not finite at optimizer step {bad} (epoch "
                f"{self.current_epoch}, batch {self._batch_of(bad)}); "
                "lower the learning rate or the radius"
            )

    def _batch_of(self, step: int) -> int:
        batches, size = self.trainer.num_training_batches, self.descent.accumulate_grad_batches
        return (step if batches == float("inf") else step % -(-int(batches) // size)) * size

    def _check_level(self) -> None:
        level, chance = self.descent.flood.level, self.task.chance_loss
        if level is not None and chance is not None and level >= chance:
            raise ValueError(
                f"flood.b={level}: not below {chance:.3f}, the loss of a predictor that ignores "
                "its input, so there would be nothing to learn; choose a lower level"
            )
