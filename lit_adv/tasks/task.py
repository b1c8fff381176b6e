"""Task: a network with its losses, its divergence, its metrics and its place to perturb."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from torch import Tensor, nn
from torchmetrics import MetricCollection

from lit_adv.adapters import inner
from lit_adv.tasks.batch import Batch as Batch
from lit_adv.tasks.place import Place, Words


class Task(nn.Module, ABC):
    """Base of all tasks.

    Args:
        network: called with the batch's tensors by name, as models of transformers are.
        at: name of the module whose output is perturbed, None asks the network; or a Place.
        special_tokens: `perturb` or `keep` clean the special tokens ([CLS], [SEP], <s>, ...).
    """

    monitor: str
    """The validation metric that the best checkpoint is chosen by."""

    several_texts: ClassVar[bool] = False
    """Whether an example has several texts, [batch, texts, tokens]."""

    separable: ClassVar[bool] = True
    """Whether an example's loss does not depend on the others of its batch."""

    def __init__(
        self, network: nn.Module, *, at: str | Place | None = None, special_tokens: str = "perturb"
    ) -> None:
        super().__init__()
        # A pretrained network comes in evaluation mode, and Lightning leaves modes alone.
        self.network = network.train()
        self._inputs = set(inspect.signature(inner(network).forward).parameters) - {"labels"}
        self.place = at if isinstance(at, Place) else Words(network, at, special_tokens)

    @property
    def embeddings(self) -> nn.Module:
        """The module whose output is perturbed."""
        return self.place.module

    @property
    def width(self) -> int:
        """Coordinates per token of what is perturbed."""
        return self.place.width

    @property
    def rows(self) -> int:
        """Words of the perturbed embedding table."""
        return self.place.rows

    def forward(self, batch: Batch) -> Tensor:
        """The network's answers, as losses and divergences take them: [batch, classes], ..."""
        return self.network(**{k: v for k, v in batch.items() if k in self._inputs}).logits

    def begin(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Before the first step of a training that is not resumed.

        Args:
            batches: one pass over the training set, on the task's device.
        """

    def answer(self, batch: Batch, delta: Tensor | None = None, relative: bool = False) -> Tensor:
        """`f(e + delta)`: logits with the perturbation added where the task is perturbed."""
        with self.place.perturbed(batch, delta, relative) as perturbed:
            return self(perturbed)

    def mask(self, batch: Batch) -> Tensor:
        """True at the tokens that may be perturbed, [batch, tokens]: never padding."""
        return self.place.mask(batch)

    def words(self, batch: Batch) -> Tensor:
        """The row of the embedding table that each token is, [batch, tokens]."""
        return self.place.words(batch)

    def within(self, batch: Batch, delta: Tensor) -> Tensor:
        """The nearest perturbation that leaves inputs where inputs may be."""
        return self.place.within(batch, delta)

    @abstractmethod
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of every example in nats (or squared units of the target), [batch]."""

    @abstractmethod
    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        """How far two predictions of each example lie apart, [batch]: symmetric, from logits."""

    @abstractmethod
    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        """One way of the divergence: pulls p towards a q that stands still, [batch]."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, updated with what `scored` gives."""

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predictions and labels, as the metrics take them."""
        return logits.float(), batch["labels"]

    @property
    @abstractmethod
    def chance_loss(self) -> float | None:
        """The loss of a predictor that ignores its input; None where it is unknown."""
