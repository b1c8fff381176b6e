"""Loop: what Lightning's automatic optimisation would do, by hand and per effective batch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from lit_adv import mixes, parallel, processes, standstill
from lit_adv.descent import Descent
from lit_adv.finite import FirstNonFinite
from lit_adv.interruption import Interruption
from lit_adv.random_state import RandomState
from lit_adv.tasks.task import Batch, Task
from lit_adv.window import Window
from lit_adv.windowed import Windowed


class Loop(Windowed):
    """Effective batches, their looks and steps, and checkpoints: no word of perturbations.

    Args:
        task: the network and its losses.
        descent: how the weights descend.

    Raises:
        ValueError: the flood level is not below the loss of a predictor that ignores its input, or
            the parts make no sense together.
    """

    passes: ClassVar[Literal["one", "several", "own steps"]] = "several"
    """How often a step passes over a batch; `own steps`: the method steps the optimizer itself."""

    cuts_network: ClassVar[bool] = False
    """Whether the method runs some of the network's layers without the others."""

    differentiates_twice: ClassVar[bool] = False
    """Whether the method descends a gradient of the network, which is differentiated once more."""

    perturbs: ClassVar[bool] = True
    """Whether the method perturbs what the network is given."""

    compares_answers: ClassVar[bool] = False
    """Whether the method asks how far two of the network's answers lie apart."""

    separates_losses: ClassVar[bool] = False
    """Whether the mean of the losses is not enough: each example's own is needed."""

    unlabelled: ClassVar[bool] = False
    """Whether the method uses texts without labels, `batch["unlabelled"]`."""

    def __init__(self, task: Task, descent: Descent | None = None) -> None:
        super().__init__(task, descent)
        self.automatic_optimization = False
        self.descent.flood.check(self.task.chance_loss)
        mixes.check(type(self), self.descent)
        mixes.check_compiled(type(self), self.descent, task.network)
        mixes.check_separable(type(self), task)
        self._finite = FirstNonFinite()
        self._interruption: Interruption | None = None

    # ---- the step --------------------------------------------------------------------------------

    def note(self, name: str, value: Tensor) -> None:
        """Log what one pass says of itself; a second look is not logged."""
        if self._logs and not self.again:
            self.log(name, value.detach())

    def finish(self, *, counted: bool = True) -> None:
        """At the end of the effective batch: second look, mask, clip, step, schedule, follow.

        Args:
            counted: whether this is the optimizer step that the batch counts as.
        """
        window = self.window
        if not window.full:
            return
        self._window = None
        self._finite.watch(window.watched, self.trainer.global_step)
        if self.again:
            self._note_flood(window)
            return
        self.log("train/loss", window.loss, prog_bar=True)
        self.descent.flood.note(window.loss)

        optimizer, update = self.optimizers(), self.descent.update
        assert isinstance(optimizer, LightningOptimizer)
        if self.looks_again:
            self._look_again(optimizer.optimizer)
        else:
            self._note_flood(window)
        with update.stepping(optimizer.optimizer, self.steps_taken):
            taken = self.take_step(counted=counted)  # masks and clips in on_before_optimizer_step
        if counted and taken:
            self.schedule("step", self.steps_taken)
            self.descent.proximal.follow(self.task, self.steps_taken, self.total_steps)

    def _look_again(self, optimizer: Optimizer) -> None:
        """Pass over the effective batch once more, at the weights where the update puts them."""
        if self.descent.update.steps_first:
            self._mask_and_clip(optimizer)
        now = RandomState(self.device, *self.streams)
        self.again = True
        try:
            with (
                self.descent.update.displaced(self.training_weights, optimizer),
                standstill.statistics_kept(self.task),
            ):
                for batch, batch_idx, state in self._rehearsal:
                    state.rewind()
                    self.training_step(batch, batch_idx)
        finally:
            self.again = False
            self._rehearsal = []
            now.rewind()

    @property
    def streams(self) -> list[torch.Generator]:
        """Random streams beside PyTorch's own, which a second look draws from again."""
        return []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        if self._window is None:
            self.remember_beginning()
        if self.looks_again:
            self._rehearsal.append((batch, batch_idx, RandomState(self.device, *self.streams)))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Here, not before step(): half-precision gradients are unscaled only from this hook on.
        self._mask_and_clip(optimizer)

    def _mask_and_clip(self, optimizer: Optimizer) -> None:
        if self.descent.mask.acts:
            self.note("mask/share", self.descent.mask.apply(self.task, self.steps_taken))
        if self.descent.gradient_clip_val is not None:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.descent.gradient_clip_val,
                gradient_clip_algorithm=self.descent.gradient_clip_algorithm,
            )

    def _note_flood(self, window: Window) -> None:
        if self._logs and self.descent.flood.of is not None:
            self.log("flood/share", window.flooded)

    @property
    def _logs(self) -> bool:
        """Whether anybody will see what is logged of this step: of the others it costs as much."""
        return self.trainer._logger_connector.should_update_logs or self._ends_epoch

    # ---- before, between and after ---------------------------------------------------------------

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._interruption = None  # of a training broken off
        if stage == "fit":
            parallel.check(self.trainer.strategy)
            mixes.check_module(self)
            mixes.check_precision(self.descent, str(self.trainer.precision))
            mixes.check_processes(self.descent, self.trainer.world_size)

    def configure_callbacks(self) -> list[L.Callback]:
        return self.descent.flood.callbacks()

    def configure_model(self) -> None:
        parallel.deal_out(self, self.descent, self.task.network)

    def on_fit_start(self) -> None:
        self._finite = FirstNonFinite(self.device)
        self._window, self._rehearsal = None, []
        self.zero_grad()  # a training broken off may have left the gradient of half a window

    def on_train_start(self) -> None:
        super().on_train_start()
        if not self.resumes and self.trainer.global_step == 0:
            self.task.begin(self._training_batches)
        if self.descent.proximal.weight:  # only now do sharded weights know their checkpoint
            self.descent.proximal.begin(self.task)
        parallel.check_data(self.trainer.num_training_batches)
        self.find_training_weights()  # an epoch that is resumed is not started again
        self.descent.mask.begin(self.task, self._training_batches)
        if processes.count() > 1:
            self._interruption = Interruption()
            if not self._took_streams:
                parallel.part_streams()

    def on_train_end(self) -> None:
        self._interruption = None  # a module that holds a group of processes cannot be copied

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.find_training_weights()

    def _training_batches(self) -> Iterator[Batch]:
        """One pass over the training set that leaves the random streams as they are."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            loader = self.trainer.train_dataloader or ()
            loader = loader["labelled"] if isinstance(loader, dict) else loader
            limit = self.trainer.num_training_batches
            for batch in islice(loader, None if limit == float("inf") else int(limit)):
                yield self.trainer.strategy.batch_to_device(batch, self.device)

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        self.schedule("epoch", self.current_epoch + 1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and batch_idx % every == 0:
            self._check_finite()
        if self._interruption is not None and self._interruption.come():
            # In all processes after the same batch: Lightning ends there, after a validation if one
            # is due, or at the end of the epoch.
            self.trainer._signal_connector.received_sigterm = True

    def on_validation_start(self) -> None:
        self._check_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_finite()
        super().on_save_checkpoint(checkpoint)

    def _check_finite(self) -> None:
        self._finite.check(self.trainer.num_training_batches, self.descent.accumulate_grad_batches)
