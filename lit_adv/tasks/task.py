"""Task: a network with its losses, its divergence, its metrics and its place to perturb."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from torch import Tensor, nn
from torchmetrics import MetricCollection

from lit_adv import inject
from lit_adv.ranges import one_of

Batch: TypeAlias = Mapping[str, Tensor]


class Task(nn.Module, ABC):
    """Base of all tasks.

    Args:
        network: a Hugging Face model with a head; called with the batch's tensors by name.
        at: name of the module whose output is perturbed; None asks the network.
        special_tokens: `perturb` or `keep` clean the special tokens ([CLS], [SEP], <s>, ...).
    """

    monitor: str
    """The validation metric that the best checkpoint is chosen by."""

    def __init__(
        self, network: nn.Module, *, at: str | None = None, special_tokens: str = "perturb"
    ) -> None:
        super().__init__()
        one_of(("perturb", "keep"), "model.special_tokens", special_tokens)
        # A pretrained network comes in evaluation mode, and Lightning leaves modes alone.
        self.network = network.train()
        self.special_tokens = special_tokens
        self.at = at
        self._inputs = set(inspect.signature(network.forward).parameters) - {"labels"}
        # In a tuple: as an attribute it would be registered, and saved, a second time.
        self._embeddings = (inject.find_embeddings(network, at),)

    @property
    def embeddings(self) -> nn.Module:
        """The module whose output is perturbed."""
        return self._embeddings[0]

    @property
    def width(self) -> int:
        """Coordinates per token of the perturbed output.

        Raises:
            ValueError: the module at `model.at` does not tell.
        """
        return self._table()[1]

    @property
    def rows(self) -> int:
        """Words of the perturbed embedding table.

        Raises:
            ValueError: the module at `model.at` does not tell.
        """
        return self._table()[0]

    def _table(self) -> tuple[int, int]:
        weight = getattr(self.embeddings, "weight", None)
        rows = getattr(self.embeddings, "num_embeddings", None)
        width = getattr(self.embeddings, "embedding_dim", None)
        if rows is not None and width is not None:
            return int(rows), int(width)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            raise ValueError(f"model.at={self.at}: not an embedding module: {self.embeddings}")
        return weight.shape[0], weight.shape[1]

    def forward(self, batch: Batch) -> Tensor:
        """Logits, [batch, classes] or, for one number per example, [batch]."""
        return self.network(**{k: v for k, v in batch.items() if k in self._inputs}).logits

    def begin(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Before the first step of a training that is not resumed.

        Args:
            batches: one pass over the training set, on the task's device.
        """

    def answer(self, batch: Batch, delta: Tensor | None = None, relative: bool = False) -> Tensor:
        """`f(e + delta)`: logits with the perturbation added to the embeddings; see `inject`."""
        with inject.perturbed(self.embeddings, delta, relative):
            return self(batch)

    def mask(self, batch: Batch) -> Tensor:
        """True at the tokens that may be perturbed, [batch, tokens]: never padding."""
        mask = batch["attention_mask"].bool()
        if self.special_tokens == "keep":
            mask = mask & ~batch["special_tokens_mask"].bool()
        return mask

    @abstractmethod
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of every example in nats (or squared units of the target), [batch]."""

    @abstractmethod
    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """How far two predictions of each example lie apart, [batch]: symmetric, from logits."""

    @abstractmethod
    def towards(self, p: Tensor, q: Tensor) -> Tensor:
        """One way of the divergence: pulls p towards a q that stands still, [batch]."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, updated with (logits, labels)."""

    @property
    @abstractmethod
    def chance_loss(self) -> float | None:
        """The loss of a predictor that ignores its input; None where it is unknown."""
