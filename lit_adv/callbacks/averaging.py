"""Means of weights that stand in for them during validation, in checkpoints and after training."""

import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_adv import foreach


class Averaging(WeightAveraging):
    """Base: Lightning's `WeightAveraging`, during training only.

    Lightning's would go on afterwards: a checkpoint that is loaded to be tested would be tested
    with the weights themselves instead of their mean. And it averages whole numbers, such as
    position ids, which rounding then spoils; here they are those of the last step.

    Args:
        share: how far the mean moves towards the weights, from the number of weights averaged.
        device: where the mean is kept; None = where the network is.

    Raises:
        ValueError: at the start, if the weights are sharded.
    """

    def __init__(self, share: Callable[[Tensor], float], device: str | None = None) -> None:
        @torch.no_grad()
        def average(mean: list[Tensor], now: list[Tensor], count: Tensor) -> None:
            if mean[0].is_floating_point():
                foreach.lerp_(mean, now, share(count))
            else:
                foreach.copy_(mean, now)

        super().__init__(device, multi_avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise ValueError(
                "callbacks: averages of weights want them whole in each process; choose trainer=ddp"
            )
        with warnings.catch_warnings():  # that a hook is there by which weights could be sharded
            warnings.filterwarnings("ignore", "You're using the WeightAveraging callback")
            super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
