"""Place: where a task is perturbed. `Words`, behind a table of words, or `Pixels`, in images."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from lit_adv import inject
from lit_adv.ranges import one_of
from lit_adv.tasks.batch import Batch
from lit_adv.tasks.valid_range import ValidRange


class Place(ABC):
    """What of a batch is perturbed, and in which shape: [batch, tokens, width]."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """Whose output is perturbed."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Coordinates per token."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Words of the table that is perturbed."""

    @abstractmethod
    def perturbed(
        self, batch: Batch, delta: Tensor | None, relative: bool = False
    ) -> AbstractContextManager[Batch]:
        """Inside the block, a pass over the batch it yields is perturbed."""

    @abstractmethod
    def mask(self, batch: Batch) -> Tensor:
        """True at the tokens that may be perturbed, [batch, tokens]."""

    @abstractmethod
    def words(self, batch: Batch) -> Tensor:
        """The row of the table that each token is, [batch, tokens]."""

    def within(self, batch: Batch, delta: Tensor) -> Tensor:
        """The nearest perturbation that leaves inputs where inputs may be."""
        return delta


class Words(Place):
    """The output of a table of word embeddings, or of any module of that shape.

    Where an example has several texts (choices, views), they are perturbed as one: a perturbation
    is [batch, texts * tokens, width].

    Args:
        network: any Hugging Face model, or any module if `at` is given.
        at: name of the module; None asks the network.
        special_tokens: `perturb` or `keep` clean the special tokens ([CLS], [SEP], <s>, ...).

    Raises:
        ValueError: there is no such module.
    """

    def __init__(
        self, network: nn.Module, at: str | None = None, special_tokens: str = "perturb"
    ) -> None:
        one_of(("perturb", "keep"), "model.special_tokens", special_tokens)
        self.at, self.special_tokens = at, special_tokens
        self._module = inject.find_embeddings(network, at)
        self._tokens_first = inject.tokens_first(network)

    @property
    def module(self) -> nn.Module:
        return self._module

    @property
    def width(self) -> int:
        """Coordinates per token.

        Raises:
            ValueError: the module at `model.at` does not tell.
        """
        return table_size(self.module, f"model.at={self.at}")[1]

    @property
    def rows(self) -> int:
        """Words of the table.

        Raises:
            ValueError: the module at `model.at` does not tell.
        """
        return table_size(self.module, f"model.at={self.at}")[0]

    @contextmanager
    def perturbed(
        self, batch: Batch, delta: Tensor | None, relative: bool = False
    ) -> Iterator[Batch]:
        with inject.perturbed(self.module, delta, relative, self._tokens_first):
            yield batch

    def mask(self, batch: Batch) -> Tensor:
        """Real tokens: never padding."""
        mask = batch["attention_mask"].bool()
        if self.special_tokens == "keep":
            mask = mask & ~batch["special_tokens_mask"].bool()
        return mask.flatten(1)

    def words(self, batch: Batch) -> Tensor:
        return batch["input_ids"].flatten(1)


class Pixels(Place):
    """The images themselves, whose pixels stay in their range: `low <= x + delta <= high`.

    An image is perturbed as one token of all its numbers: a perturbation is [batch, 1, C * H * W].
    After each projection to the ball it is moved to the nearest one within the range, which takes
    it further into the ball, not out of it: both are boxes for `linf`, and in general a coordinate
    only shrinks. Clamping the input inside the network instead would leave perturbations outside,
    where their gradient is zero.

    Args:
        low: smallest valid value, one number or one per channel; where images are normalised, of
            what the network is given.
        high: largest.
        name: of the images in a batch.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(
        self,
        low: float | Sequence[float] = 0.0,
        high: float | Sequence[float] = 1.0,
        name: str = "pixel_values",
    ) -> None:
        self.valid = ValidRange(low, high, f"model.low={low}, model.high={high}")
        self.name = name
        self._width: int | None = None  # not known before the first batch

    @property
    def module(self) -> nn.Module:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError("images: they have no words, which this method or callback perturbs")

    @property
    def rows(self) -> int:
        """There are none.

        Raises:
            ValueError: always.
        """
        raise ValueError("images: they have no table of words, which this method perturbs")

    @property
    def width(self) -> int:
        """Numbers per image, of the last batch whose mask was asked for."""
        assert self._width is not None, "the mask of a batch tells the width"
        return self._width

    @contextmanager
    def perturbed(
        self, batch: Batch, delta: Tensor | None, relative: bool = False
    ) -> Iterator[Batch]:
        if delta is None:
            yield batch
            return
        if relative:
            raise ValueError(
                "method.relative=true: in units of word vectors, which images do not have; set it "
                "to false"
            )
        clean = batch[self.name]
        moved = clean + delta.reshape(clean.shape).to(clean.dtype)
        yield cast("Batch", {**batch, self.name: moved})

    def mask(self, batch: Batch) -> Tensor:
        """Every image.

        Raises:
            ValueError: the first batch has pixels outside the range.
        """
        images = batch[self.name]
        self.valid.check(images)
        self._width = images[0].numel()
        return torch.ones(len(images), 1, dtype=torch.bool, device=images.device)

    def words(self, batch: Batch) -> Tensor:
        """There are none.

        Raises:
            ValueError: always.
        """
        raise ValueError("images: they have no words, which this method goes by")

    def within(self, batch: Batch, delta: Tensor) -> Tensor:
        return self.valid.limit(batch[self.name], delta)


def table_size(module: nn.Module, key: str) -> tuple[int, int]:
    """Rows and width of an embedding table.

    Raises:
        ValueError: it is none; the line begins with the key.
    """
    weight = getattr(module, "weight", None)
    rows = getattr(module, "num_embeddings", None)
    width = getattr(module, "embedding_dim", None)
    if rows is not None and width is not None:
        return int(rows), int(width)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ValueError(f"{key}: not an embedding module: {module}")
    return weight.shape[0], weight.shape[1]
