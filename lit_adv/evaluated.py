"""Evaluated: a task in Lightning, without any training."""

from typing import Any

import lightning as L
from torch import Tensor
from torchmetrics import MeanMetric

from lit_adv.tasks.task import Batch, Task


class Evaluated(L.LightningModule):
    """Logs `val/loss`, `test/loss` and the task's metrics under `val/` and `test/`.

    Args:
        task: the network, its losses and metrics.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.val_metrics, self.test_metrics = task.metrics(), task.metrics()
        # Not by `clone`, which copies deeply what has just been made.
        self.val_metrics.prefix, self.test_metrics.prefix = "val/", "test/"
        # Not the mean by Lightning, which over processes truncates how many examples each has.
        self.val_loss, self.test_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))

    def forward(self, batch: Batch) -> Tensor:
        return self.task(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_metrics, self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_metrics, self.test_loss)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.task(batch)

    def _evaluate(self, batch: Batch, split: str, metrics: Any, mean: MeanMetric) -> None:
        logits = self.task(batch)
        losses = self.task.losses(logits, batch)
        mean.update(losses)
        metrics.update(*self.task.scored(logits, batch))
        self.log(f"{split}/loss", mean, prog_bar=True)
        self.log_dict(metrics)
