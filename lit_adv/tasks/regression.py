"""Regression: one number per text or pair."""

import warnings

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanSquaredError, MetricCollection, PearsonCorrCoef, SpearmanCorrCoef

from lit_adv.functional import divergence
from lit_adv.functional.precision import at_least_float32
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch, Task


class Regression(Task):
    """Squared error, in squared units of the target; predictions differ by the square too.

    Args:
        network: a model for sequence classification with a single output.
        variance: variance of the training targets, which is the loss of always answering their
            mean.
        at: see Task.
        special_tokens: see Task.
    """

    monitor = "val/pearson"

    def __init__(
        self,
        network: nn.Module,
        *,
        variance: float | None = None,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
    ) -> None:
        super().__init__(network, at=at, special_tokens=special_tokens)
        self.variance = variance

    def forward(self, batch: Batch) -> Tensor:
        # [batch, 1] against targets [batch] would broadcast to [batch, batch].
        return super().forward(batch).squeeze(-1)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.mse_loss(at_least_float32(logits), batch["labels"], reduction="none")

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return divergence.squared(p, q)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return divergence.squared(p, q.detach())

    def metrics(self) -> MetricCollection:
        with warnings.catch_warnings():  # that ranks need all predictions of a split in memory
            warnings.filterwarnings("ignore", message="Metric `SpearmanCorrcoef`")
            spearman = SpearmanCorrCoef()
        return MetricCollection(
            {"pearson": PearsonCorrCoef(), "spearman": spearman, "mse": MeanSquaredError()}
        )

    @property
    def chance_loss(self) -> float | None:
        return self.variance
