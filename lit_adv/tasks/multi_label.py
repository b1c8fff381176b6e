"""Multi-label classification: any number of labels for a text."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
)

from lit_adv.functional import divergence
from lit_adv.functional.precision import at_least_float32
from lit_adv.ranges import share
from lit_adv.tasks.cross_entropy import PerClass
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch, Task


class MultiLabel(Task):
    """Binary cross-entropy, the mean over labels; predictions are compared label by label.

    `labels` are zeros and ones, [batch, num_labels]. The divergence is the symmetric KL of each
    label's yes and no, the mean over labels as well, so that weights of penalties mean the same
    however many labels there are.

    Args:
        network: a model for sequence classification with `num_labels` logits.
        num_labels: C, number of labels, at least 2.
        at: see Task.
        special_tokens: see Task.
        positive_weights: of each label, factor of its loss where it is given, [C]; None = 1.
        label_smoothing: s: targets are s / 2 and 1 - s / 2.

    Raises:
        ValueError: there are more or fewer weights than labels, or an option is out of its range.
    """

    monitor = "val/micro_f1"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_labels: int,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
        positive_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(network, at=at, special_tokens=special_tokens)
        if num_labels < 2:
            raise ValueError(f"num_labels={num_labels}: one label is a classification of two")
        self.positive_weights = PerClass("task.positive_weights", positive_weights, num_labels)
        self.num_labels = num_labels
        self.label_smoothing = share("task.label_smoothing", label_smoothing)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        logits = at_least_float32(logits)
        targets = batch["labels"].to(logits.dtype)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        values = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.positive_weights.like(logits), reduction="none"
        )
        return values.mean(1)

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return divergence.symmetric_bernoulli_kl(p, q)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return divergence.bernoulli_kl(q.detach(), p)

    def metrics(self) -> MetricCollection:
        n = self.num_labels
        return MetricCollection(
            {
                "micro_f1": MultilabelF1Score(n, average="micro"),
                "macro_f1": MultilabelF1Score(n, average="macro"),
                "exact_match": MultilabelExactMatch(n),
                # In bins: the exact one keeps all predictions of a split in memory.
                "average_precision": MultilabelAveragePrecision(n, thresholds=1001),
            }
        )

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        # Probabilities: logits that happen to lie in [0, 1] would be taken for some.
        return logits.float().sigmoid(), batch["labels"].long()

    @property
    def chance_loss(self) -> float | None:
        return None if self.positive_weights.given else math.log(2)
