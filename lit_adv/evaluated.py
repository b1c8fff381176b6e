"""Evaluated: a task in Lightning, without any training."""

from typing import Any

import lightning as L
from torch import Tensor

from lit_adv.tasks.task import Batch, Task


class Evaluated(L.LightningModule):
    """Logs `val/loss`, `test/loss` and the task's metrics under `val/` and `test/`.

    Args:
        task: the network, its losses and metrics.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.val_metrics = task.metrics().clone(prefix="val/")
        self.test_metrics = task.metrics().clone(prefix="test/")

    def forward(self, batch: Batch) -> Tensor:
        return self.task(batch)

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
        self.log(name, losses.mean(), batch_size=len(losses), prog_bar=True, sync_dist=True)
        self.log_dict(metrics)
