"""Token classification: a label for every word, as for entities or parts of speech."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lit_adv.tasks.cross_entropy import IGNORED, CrossEntropy
from lit_adv.tasks.entity_f1 import EntityF1
from lit_adv.tasks.per_token import PerToken
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch


class TokenClassification(PerToken):
    """Cross-entropy of every word's label; predictions are compared word by word, by symmetric KL.

    `labels` are [batch, tokens], -100 where there are none: at padding and special tokens, and at
    the later pieces of a word. What an example's loss is: see PerToken.

    Args:
        network: a model for token classification with `len(label_names)` logits per token.
        label_names: of the classes. Where all are O, B-x and I-x, F1 is that of whole entities.
        at: see Task.
        special_tokens: see Task.
        class_weights: of every class, see CrossEntropy; None = all alike.
        label_smoothing: share of the target that all classes have alike.

    Raises:
        ValueError: there are fewer than two classes, or an option lies outside its range.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        label_names: Sequence[str],
        at: str | Place | None = None,
        special_tokens: str = "perturb",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        names = list(label_names)
        if len(names) < 2:
            raise ValueError(f"label_names={names}: needs two classes or more")
        cross_entropy = CrossEntropy(len(names), class_weights, label_smoothing)
        super().__init__(network, cross_entropy, at=at, special_tokens=special_tokens)
        self.label_names = names
        self.entities = all(name == "O" or name[:2] in ("B-", "I-") for name in self.label_names)
        self.monitor = "val/entity_f1" if self.entities else "val/accuracy"

    def metrics(self) -> MetricCollection:
        count = len(self.label_names)
        found: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(count, average="micro", ignore_index=IGNORED),
            "macro_f1": MulticlassF1Score(count, average="macro", ignore_index=IGNORED),
        }
        if self.entities:
            for of in ("f1", "precision", "recall"):
                found[f"entity_{of}"] = EntityF1(self.label_names, of)
        return MetricCollection(found)

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return logits.argmax(-1), batch["labels"]

    @property
    def chance_loss(self) -> float | None:
        return None if self.cross_entropy.weights.given else math.log(len(self.label_names))
