"""Sentence embeddings by contrast: SimCSE (Gao et al., EMNLP 2021, arXiv:2104.08821), FlatNCE."""

import math
import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection, SpearmanCorrCoef

from lit_adv.direction import sees_ahead
from lit_adv.functional import contrast, divergence
from lit_adv.functional.precision import at_least_float32
from lit_adv.ranges import one_of
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch, Task


class Contrastive(Task):
    """Each text near its other view, far from the views of the others in its batch.

    A batch's texts are [batch, views, tokens]: the same text twice, which dropout makes two views
    of; or a text, its positive and, as a third, a hard negative. With
    `s_ij = cos(z_i, z'_j) / temperature` over all second (and third) views j, an example's loss is
    `-log softmax_j(s_ij)` at j = i (`info_nce`), or `logsumexp_{j != i}(s_ij) - s_ii` (`flat_nce`,
    whose gradient does not vanish where the margin is wide). The views of an example are perturbed
    as one. Negatives are those of the micro-batch and the process: a batch cut in two is another
    loss, and so accumulated batches and more devices have fewer negatives than one of their size.
    Answers are compared by the cosine of each view, which is how they are used.

    Args:
        network: a model without a head, which answers with hidden states; dropout makes the views.
        loss: `info_nce` or `flat_nce`.
        temperature: tau.
        pooling: `first` token (the paper's [CLS]) or `mean` of the real ones.
        similarity: validation and test batches have two texts per example, and `labels` that say
            how near they are: measured is the rank correlation with their cosine. Else measured
            is `retrieved`, the share of texts whose nearest other view in the batch is their own:
            without dropout, 1 for views of the same text.
        at: see Task.
        special_tokens: see Task.

    Raises:
        ValueError: an option lies outside its range, or the first token knows nothing of the rest.
    """

    several_texts = True
    separable = False

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Literal["info_nce", "flat_nce"] = "info_nce",
        temperature: float = 0.05,
        pooling: Literal["first", "mean"] = "first",
        similarity: bool = False,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
    ) -> None:
        super().__init__(network, at=at, special_tokens=special_tokens)
        one_of(("info_nce", "flat_nce"), "task.loss", loss)
        if not 0 < temperature < math.inf:
            raise ValueError(f"task.temperature={temperature}: needs to be above 0")
        self.nce = {"info_nce": contrast.info_nce, "flat_nce": contrast.flat_nce}[loss]
        self.temperature = temperature
        self.similarity = similarity
        self.monitor = "val/spearman" if similarity else "val/loss"
        self.pooling = one_of(("first", "mean"), "task.pooling", pooling)
        if pooling == "first" and not sees_ahead(network):
            raise ValueError(
                f"task.pooling=first: what {type(network).__name__} says at the first token "
                "depends on no other, and all texts would be one; set task.pooling=mean"
            )

    def forward(self, batch: Batch) -> Tensor:
        """The embedding of every view, [batch, views, width]."""
        views = batch["input_ids"].shape[1]
        flat = {k: v.flatten(0, 1) for k, v in batch.items() if k in self._inputs}
        states = self.network(**flat).last_hidden_state
        return self.pool(states, flat["attention_mask"]).unflatten(0, (-1, views))

    def pool(self, states: Tensor, real: Tensor) -> Tensor:
        """[texts, tokens, width] -> [texts, width]."""
        if self.pooling == "first":
            first = real.argmax(1)  # behind padding at the left
            return states[torch.arange(len(states), device=states.device), first]
        real = real.unsqueeze(-1).to(states.dtype)
        return (states * real).sum(1) / real.sum(1).clamp(min=1)

    def scores(self, embeddings: Tensor) -> Tensor:
        """`cos / temperature` of each first view with all others, [batch, (views - 1) * batch]."""
        unit = F.normalize(at_least_float32(embeddings), dim=-1)
        with torch.autocast(unit.device.type, enabled=False):
            return unit[:, 0] @ unit[:, 1:].transpose(0, 1).flatten(0, 1).T / self.temperature

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return self.nce(self.scores(logits), torch.arange(len(logits), device=logits.device))

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        values = divergence.cosine(p.flatten(0, 1), q.flatten(0, 1))
        return values.view(p.shape[:2]).mean(1)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return self.divergence(p, q.detach(), batch)

    def metrics(self) -> MetricCollection:
        if not self.similarity:
            return MetricCollection({"retrieved": Retrieved()})
        with warnings.catch_warnings():  # that ranks need all predictions of a split in memory
            warnings.filterwarnings("ignore", message="Metric `SpearmanCorrcoef`")
            return MetricCollection({"spearman": SpearmanCorrCoef()})

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.similarity:
            one, other = logits.float().unbind(1)
            return F.cosine_similarity(one, other), batch["labels"]
        scores = self.scores(logits)
        return scores, torch.arange(len(scores), device=scores.device)

    @property
    def chance_loss(self) -> None:
        return None  # the logarithm of a batch's size, which may differ


class Retrieved(MeanMetric):
    """The share of texts whose nearest other view in the batch is their own."""

    higher_is_better = True

    def update(self, scores: Tensor, own: Tensor) -> None:  # pyright: ignore
        """Count a batch."""
        super().update((scores.argmax(1) == own).float())
