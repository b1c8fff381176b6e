"""Causal language modelling: every token from those before it, and prompts that are not learnt."""

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from lit_adv.tasks.cross_entropy import IGNORED, CrossEntropy
from lit_adv.tasks.per_token import PerToken
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch


class CausalLM(PerToken):
    """Cross-entropy of every token that has a label, from the tokens before it.

    `labels` are [batch, tokens]: the tokens themselves, -100 at padding and in prompts, not shifted
    (as in transformers). Predictions are compared by symmetric KL where a token is predicted that
    has a label. What an example's loss is: see PerToken.

    Args:
        network: a model for causal language modelling.
        vocabulary: V, number of logits per token.
        at: see Task.
        special_tokens: see Task.
        label_smoothing: share of the target that all tokens have alike.
    """

    monitor = "val/perplexity"

    def __init__(
        self,
        network: nn.Module,
        *,
        vocabulary: int,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
        label_smoothing: float = 0.0,
    ) -> None:
        cross_entropy = CrossEntropy(vocabulary, None, label_smoothing)
        super().__init__(network, cross_entropy, at=at, special_tokens=special_tokens)
        self.vocabulary = vocabulary

    def forward(self, batch: Batch) -> Tensor:
        """What is said of the tokens from the second on, [batch, tokens - 1, V]."""
        return super().forward(batch)[:, :-1]

    def of_answers(self, per_token: Tensor) -> Tensor:
        return per_token[:, 1:]

    def counted(self, batch: Batch) -> Tensor:
        # Behind padding at the left, nothing stands before the first token.
        return super().counted(batch) & batch["attention_mask"][:, :-1].bool()

    def compared(self, batch: Batch) -> Tensor:
        return super().compared(batch) & batch["attention_mask"][:, :-1].bool()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"perplexity": Perplexity()})

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = self.of_answers(batch["labels"])
        return logits.float(), labels.masked_fill(~self.counted(batch), IGNORED)

    @property
    def chance_loss(self) -> float:
        return math.log(self.vocabulary)


class Perplexity(MeanMetric):
    """`exp` of the mean loss of all labelled tokens: of tokens, where losses are of examples.

    From logits: torchmetrics' own takes the logarithm of probabilities, and is infinite once one of
    them is rounded to zero.
    """

    higher_is_better = False

    def update(self, logits: Tensor, labels: Tensor) -> None:  # pyright: ignore
        """Count a batch: [batch, tokens, V] and [batch, tokens]."""
        values = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        super().update(values, (labels.flatten() != IGNORED).float())

    def compute(self) -> Tensor:
        """Over all batches so far."""
        return super().compute().exp()
