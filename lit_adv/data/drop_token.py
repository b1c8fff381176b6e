"""DropToken in training: shorter batches of the same texts, anew in every epoch."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lit_adv import positions, ranges
from lit_adv.adapters import inner
from lit_adv.functional.drop_token import COLUMNS, drop
from lit_adv.random_state import apart


@dataclass(frozen=True)
class DropToken:
    """Leaves out words of a training batch; which ones depends on where the training stands.

    So a training that is resumed, and a second look at a batch, leave out the same.

    Args:
        share: chance of each word, in [0, 1).
        padding: id of the padding.
        offset: place of a text's first word, as the network counts.
        seed: of the draws.
        labels_tokens: the batch's labels are those of its tokens.
    """

    share: float
    padding: int
    offset: int
    seed: int
    labels_tokens: bool = False

    @classmethod
    def of(
        cls,
        share: float,
        network: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        *,
        labels_tokens: bool = False,
    ) -> "DropToken | None":
        """For this network; None where nothing is left out.

        Raises:
            ValueError: the share is out of range, or the network cannot be told its words' places.
        """
        if not ranges.share("model.drop_token", share):
            return None
        told = "position_ids" in inspect.signature(inner(network).forward).parameters
        config = getattr(inner(network), "config", None)
        # DeBERTa takes the distance of two words from where they stand in the batch.
        if not told or getattr(config, "relative_attention", False):
            raise ValueError(
                f"model.drop_token={share}: {type(network).__name__} cannot be told the places of "
                "its words (position_ids); set it to 0"
            )
        padding: Any = tokenizer.pad_token_id
        return cls(share, padding or 0, positions.first(network), seed, labels_tokens)

    def __call__(
        self, batch: Mapping[str, Tensor], epoch: int, number: int, rank: int
    ) -> dict[str, Tensor]:
        """This batch, shorter.

        Args:
            batch: on the host.
            epoch: of the training.
            number: of the batch within the epoch.
            rank: of the process.
        """
        stream = torch.Generator().manual_seed(apart(apart(apart(self.seed, epoch), number), rank))
        places = torch.arange(batch["input_ids"].shape[1]) + self.offset
        told = {**batch, "position_ids": places.expand_as(batch["input_ids"])}
        columns = (*COLUMNS, "labels") if self.labels_tokens else COLUMNS
        return drop(told, self.share, columns=columns, padding=self.padding, generator=stream)
