"""Stochastic weight averaging: Izmailov et al., UAI 2018, arXiv:1803.05407."""

from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from lit_adv.callbacks.averaging import Averaging
from lit_adv.ranges import whole


class StochasticWeightAveraging(Averaging):
    """The plain mean of the weights at every n-th optimizer step of the last part of training.

    Validation, checkpoints and the end of training see the mean; before it begins, the weights
    themselves. Lightning's `WeightAveraging` does the work; its own `StochasticWeightAveraging`
    changes the learning rate and knows nothing of manual optimisation.

    Args:
        start: share of all optimizer steps before the first weights are averaged, in [0, 1).
        every_n_steps: n.
        device: where the mean is kept; None = where the network is.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self, start: float = 0.5, every_n_steps: int = 1, device: str | None = None
    ) -> None:
        super().__init__(lambda count: 1 / (int(count) + 1), device)
        if not 0 <= start < 1:
            raise ValueError(f"callbacks: start={start}: a share of the steps, in [0, 1)")
        self.start = start
        self.every_n_steps = whole(1, "callbacks: every_n_steps", every_n_steps)
        self._first = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps = getattr(pl_module, "total_steps", None) or trainer.estimated_stepping_batches
        self._first = int(self.start * steps)  # below all steps, so that there is a mean

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        since = -1 if step_idx is None else step_idx - self._first
        return since >= 0 and since % self.every_n_steps == 0

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def _follow(self, pl_module: L.LightningModule) -> None:
        """Until there is a mean, the weights themselves stand in for it: not those at the start."""
        if self._average_model is not None and not self._average_model.n_averaged:
            self._average_model.module.load_state_dict(pl_module.state_dict())
