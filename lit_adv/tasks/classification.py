"""Classification: a text, a pair or an image, and one label of several."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

from lit_adv.functional import divergence
from lit_adv.ranges import one_of
from lit_adv.tasks.cross_entropy import CrossEntropy
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch, Task

HeadInit: TypeAlias = Literal["random", "closed_form"]


class Classification(Task):
    """Cross-entropy over `num_labels` classes; predictions are compared by symmetric KL.

    Args:
        network: a model for classification with `num_labels` logits.
        num_labels: C, number of classes, at least 2.
        at: see Task.
        special_tokens: see Task.
        head_init: of the last layer: `random`, as the network comes, or `closed_form`: logistic
            regression on the features of the training set, in one pass before the first step; see
            functional.discriminant.
        class_weights: of every class, see CrossEntropy; None = all alike.
        label_smoothing: share of the target that all classes have alike.

    Raises:
        ValueError: there are fewer than two classes, or an option lies outside its range.
    """

    monitor = "val/accuracy"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_labels: int,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
        head_init: HeadInit = "random",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(network, at=at, special_tokens=special_tokens)
        if num_labels < 2:
            raise ValueError(f"num_labels={num_labels}: classification needs two classes or more")
        self.num_labels = num_labels
        self.cross_entropy = CrossEntropy(num_labels, class_weights, label_smoothing)
        self.head_init = one_of(get_args(HeadInit), "model.head_init", head_init)

    def begin(self, batches: Callable[[], Iterable[Batch]]) -> None:
        if self.head_init == "closed_form":
            from lit_adv.head import Head  # here: it is about tasks

            Head.of(self).solve(batches())

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return self.cross_entropy(logits, batch["labels"])

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return divergence.symmetric_kl(p, q)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return divergence.kl(q.detach(), p)  # grad_p = softmax(p) - softmax(q)

    def metrics(self) -> MetricCollection:
        n = self.num_labels
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(n, average="micro"),
                "macro_f1": MulticlassF1Score(n, average="macro"),
                # With a class that never comes: for two classes torchmetrics has a special case
                # that answers up to 1 for a constant predictor, where the coefficient is 0.
                "mcc": MulticlassMatthewsCorrCoef(n + 1, validate_args=False),
                "calibration_error": MulticlassCalibrationError(n, n_bins=15),
            }
        )

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        # Probabilities: logits that happen to lie in [0, 1] would be taken for some.
        return logits.float().softmax(-1), batch["labels"]

    @property
    def chance_loss(self) -> float | None:
        return None if self.cross_entropy.weights.given else math.log(self.num_labels)
