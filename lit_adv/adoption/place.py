"""Place: what of somebody's batch is perturbed, and in which shape."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lit_adv import inject, layers, standstill
from lit_adv.adoption import modules
from lit_adv.random_state import RandomState
from lit_adv.tasks.task import Batch
from lit_adv.tasks.valid_range import ValidRange

INPUT = "input"
"""As a place: the batch's first tensor of real numbers."""


class Place:
    """Where perturbations enter: behind a module, or in the batch itself.

    A perturbation has the shape [batch, tokens, width] of the module's output; for images and
    whatever else is not a sequence of vectors, [batch, 1, all its numbers].

    Args:
        network: all of it.
        at: name of the module whose output is perturbed; `input`, for the batch's first tensor of
            real numbers; None = the word embeddings of the one Hugging Face model within, or the
            one `nn.Embedding`.
        tokens: from a batch to [batch, tokens], true where it may be perturbed; None = where the
            batch's `attention_mask` is, if it has one; else where a table of words is asked for
            anything but its `padding_idx`; else everywhere.
        valid: smallest and largest number that perturbed inputs may have, each one number or one
            per channel; for `at=input`. None = any.

    Raises:
        ValueError: `valid` is given for anything but the input.
    """

    def __init__(
        self,
        network: nn.Module,
        at: str | None = None,
        tokens: Callable[[Any], Tensor] | None = None,
        valid: tuple[Any, Any] | None = None,
    ) -> None:
        if valid is not None and at != INPUT:
            raise ValueError(f"valid={valid}: is for inputs; set at={INPUT}, or leave it out")
        self.valid = None if valid is None else ValidRange(*valid, f"valid={valid}")
        self._network = network
        self._tokens = tokens
        self._tokens_first = modules.tokens_first(network)
        self.at = at
        self._module: nn.Module | None = None
        self._problem: ValueError | None = None  # said where something is to be perturbed
        try:
            self._module = None if at == INPUT else modules.perturbed(network, at)
        except ValueError as error:
            self._problem = error
        self._seen: tuple[Any, Tensor] | None = None  # the last batch, and its mask
        self._asked: tuple[Any, Tensor | None] | None = None  # and what a table was asked for
        self._width: int = 0

    @property
    def module(self) -> nn.Module:
        """Whose output is perturbed.

        Raises:
            ValueError: it is the batch itself that is, or there is no such module.
        """
        self.check()
        if self._module is None:
            raise ValueError("at=input: this method perturbs words; name the module that has them")
        return self._module

    def check(self) -> None:
        """Refuse a place that is none.

        Raises:
            ValueError: there is no such module, or none that could be meant.
        """
        if self._problem is not None:
            raise self._problem

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return next(self._network.parameters()).device

    @property
    def width(self) -> int:
        """Numbers per token; known once there has been a batch, or of a table of words."""
        if not self._width and isinstance(self._module, nn.Embedding):
            return self._module.embedding_dim
        return self._width

    @contextmanager
    def perturbed(self, batch: Any, delta: Tensor | None, relative: bool) -> Iterator[Any]:
        """Passes inside the block, over the batch it yields, are perturbed."""
        if self._module is not None:
            with inject.perturbed(self._module, delta, relative, self._tokens_first):
                yield batch
        elif delta is None:
            yield batch
        else:
            clean = _input(batch)
            moved = clean + delta.reshape(clean.shape).to(clean.dtype)
            yield apply_to_collection(batch, Tensor, lambda t: moved if t is clean else t)

    def within(self, batch: Batch, delta: Tensor) -> Tensor:
        """The nearest perturbation that leaves inputs where they may be."""
        return delta if self.valid is None else self.valid.limit(_input(batch), delta)

    def mask(self, batch: Batch, call: Callable[[Any], object]) -> Tensor:
        """True where the batch may be perturbed, [batch, tokens].

        Args:
            batch: the batch at hand.
            call: passes over it; where only the shape of a module's output tells, it is begun and
                broken off there.
        """
        if self._seen is None or self._seen[0] is not batch:
            self._seen = batch, self._find_mask(batch, call)
        return self._seen[1]

    def words(self, batch: Any, call: Callable[[Any], object]) -> Tensor:
        """The row of the table that each token is, [batch, tokens]: what it is asked for.

        Args:
            batch: the batch at hand.
            call: passes over it; begun, and broken off at the table, where the batch has no
                `input_ids`.

        Raises:
            ValueError: no table of words is perturbed.
        """
        named = batch.get("input_ids") if isinstance(batch, Mapping) else None
        if named is not None and named.ndim == 2:  # else the network has made it so
            return named
        if self._asked is None or self._asked[0] is not batch:
            self._seen_by_module(batch, call)
        assert self._asked is not None
        ids = self._asked[1]
        if ids is None or ids.ndim != 2:
            asked = "" if ids is None else f" but for a tensor of shape {list(ids.shape)}"
            raise ValueError(
                f"at={self.at}: this method goes by words, [batch, tokens], and this module is not "
                f"asked for any{asked}; name the table that has them"
            )
        return ids

    def examples(self, batch: Any) -> int:
        """How many the batch has: the first size of its first tensor, or of what is perturbed."""
        first = next(_tensors(batch), None)
        if first is None and self._seen is not None and self._seen[0] is batch:
            first = self._seen[1]
        return 1 if first is None or not first.ndim else len(first)

    def _find_mask(self, batch: Any, call: Callable[[Any], object]) -> Tensor:
        given = None if self._tokens is None else self._tokens(batch)
        if given is None and isinstance(batch, Mapping) and "attention_mask" in batch:
            given = batch["attention_mask"]
        words = isinstance(self._module, nn.Embedding)
        if words and given is not None and given.ndim == 2:
            self._width = 0  # the table's own
            return given.bool()
        shape, ids = self._seen_by_module(batch, call)
        told = given is not None and given.shape == shape[:2]
        sequence = len(shape) == 3 and (self._module is not None or told)
        tokens = shape[1] if sequence else 1
        self._width = shape[2] if sequence else int(torch.Size(shape[1:]).numel())
        if given is not None and given.shape == (shape[0], tokens):
            return given.bool()
        if given is not None and self._tokens is not None:
            raise ValueError(
                f"tokens: of shape {list(given.shape)}, where {[shape[0], tokens]} may be perturbed"
            )
        padding = getattr(self._module, "padding_idx", None)
        if ids is not None and padding is not None and ids.shape == (shape[0], tokens):
            return ids != padding
        return torch.ones(shape[0], tokens, dtype=torch.bool, device=self.device)

    def _seen_by_module(
        self, batch: Any, call: Callable[[Any], object]
    ) -> tuple[torch.Size, Tensor | None]:
        """The shape of what is perturbed, and what a table of words was asked for."""
        self._asked = batch, None
        if self._module is None:
            if self.valid is not None:
                self.valid.check(_input(batch))
            return _input(batch).shape, None
        asked: list[Any] = []
        handle = self._module.register_forward_pre_hook(
            lambda _, args, named: asked.extend((*args, *named.values())[:1]), with_kwargs=True
        )
        before = RandomState(self.device)
        try:
            with torch.no_grad(), standstill.statistics_kept(self._network):
                output = layers.up_to(self._network, self._module, lambda: call(batch))
        finally:
            handle.remove()
            before.rewind()
        ids = asked[0] if asked and isinstance(self._module, nn.Embedding) else None
        vectors = output if isinstance(output, Tensor) else output[0]
        if self._tokens_first:
            vectors = vectors.transpose(0, 1)
            ids = None if ids is None else ids.T
        self._asked = batch, ids
        return vectors.shape, ids


def _input(batch: Any) -> Tensor:
    for tensor in _tensors(batch):
        if tensor.is_floating_point():
            return tensor
    raise ValueError("at=input: the batch has no tensor of real numbers; name a module")


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _tensors(value)
