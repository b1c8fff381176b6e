"""Texts as a network reads them, and networks that answer in batches of like length."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lit_adv import padding, positions
from lit_adv.attacks.batching import filled, padded
from lit_adv.attacks.precision import autocast, chosen

Item = str | tuple[str, str]


class Encoded(NamedTuple):
    """Tokens of a text or pair; texts that the tokenizer does not tell apart are one question."""

    tokens: tuple[int, ...]
    types: tuple[int, ...] | None = None


class Reader:
    """A network, its tokenizer, and how it is run: in evaluation, inference mode and autocast.

    Args:
        network: called with the tokenizer's columns by name.
        tokenizer: a fast one.
        max_length: longest text, in tokens, at most what network and tokenizer can take; the rest
            is cut off.
        precision: `auto`, `bf16` or `32`.
        batch_tokens: most tokens of a batch, with padding.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        precision: str = "auto",
        batch_tokens: int = 4096,
    ) -> None:
        self.network, self.tokenizer = network.eval(), tokenizer
        self.device = next(network.parameters()).device
        padding.agree(network, tokenizer)
        filling: Any = tokenizer.pad_token_id
        self._filling = int(filling or 0)
        self._left = padding.side(network) == "left"
        self.max_length = longest(network, tokenizer, max_length)
        self.precision = chosen(precision, self.device)
        self.batch_tokens = batch_tokens

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        """Tokens of each text or pair."""
        singles = [item for item in items if isinstance(item, str)]
        pairs = [item for item in items if not isinstance(item, str)]
        encoded = self.tokenizer(
            singles or [first for first, _ in pairs],
            [second for _, second in pairs] or None,
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
        )
        # A text that has no tokens, of decoders, would be none: it is one padding.
        tokens = (tuple(each) or (self._filling,) for each in encoded["input_ids"])
        types = [tuple(each) for each in encoded.get("token_type_ids", ())]
        if not types or not (pairs or any(map(any, types))):  # XLNet's are not all zero
            return [Encoded(each) for each in tokens]
        return [Encoded(each, its) for each, its in zip(tokens, types, strict=True)]

    def cuts(self, item: Item) -> bool:
        """Whether part of a text is cut off."""
        first, second = (item, None) if isinstance(item, str) else item
        longer = self.tokenizer(first, second, truncation=True, max_length=self.max_length + 1)
        return len(longer["input_ids"]) > self.max_length

    @torch.inference_mode()
    def read(
        self, texts: Sequence[Encoded], answer: Callable[[dict[str, Tensor]], Tensor]
    ) -> list[Any]:
        """One row per text of what is answered to a batch, as float32 on the host."""
        rows: list[Any] = [None] * len(texts)
        with autocast(self.precision, self.device):
            for index in filled([len(text.tokens) for text in texts], self.batch_tokens):
                answered = answer(self.batch([texts[i] for i in index]))
                for i, row in zip(index, answered.float().cpu().numpy(), strict=True):
                    rows[i] = np.array(row)  # a copy: a view would keep its whole batch alive
        return rows

    def batch(self, texts: Sequence[Encoded]) -> dict[str, Tensor]:
        """What the network is called with, padded to the longest of these texts."""
        left = self._left
        tokens = [text.tokens for text in texts]
        batch = {
            "input_ids": padded(tokens, self._filling, left),
            "attention_mask": padded([(1,) * len(each) for each in tokens], 0, left),
        }
        if texts[0].types is not None:
            batch["token_type_ids"] = padded([text.types or () for text in texts], 0, left)
        return {name: column.to(self.device) for name, column in batch.items()}


def fitting(network: nn.Module) -> int:
    """Tokens of a batch that suit the network's device."""
    return 1024 if next(network.parameters()).device.type == "cpu" else 32768


def longest(network: nn.Module, tokenizer: PreTrainedTokenizerBase, wanted: int) -> int:
    """The longest text in tokens: what is wanted, at most what network and tokenizer can take."""
    most = positions.room(network) or wanted
    return min(wanted, most, tokenizer.model_max_length)
