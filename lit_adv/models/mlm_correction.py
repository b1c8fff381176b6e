"""What masking did to words while a network was pretrained, put into their vectors
(kexue.fm/archives/8770)."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

SELECTED, MASKED, RANDOM = 0.15, 0.8, 0.1
"""BERT's: so many words are looked at, and so many of these masked, or replaced by any word."""
FLAG = "mlm_corrected"
"""In a network's configuration, which is exported with it: once is enough."""


def correct(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Replace each word's vector by its mean under the masking of pretraining, in place, once.

    Masking is to the words what dropout is to layers, which is replaced by its mean where it ends.
    A head that shares the table keeps it as it was.

    Raises:
        ValueError: the tokenizer has no mask, so masking is not how the network was trained.
    """
    if getattr(network.config, FLAG, False):
        return
    mask: Any = tokenizer.mask_token_id
    if mask is None:
        raise ValueError(
            "model.mlm_correction=true: the tokenizer has no mask token, so the network was not "
            "trained by masking; set it to false"
        )
    words: Any = network.get_input_embeddings()
    head: Any = network.get_output_embeddings()
    if head is not None and head.weight is words.weight:
        head.weight = torch.nn.Parameter(words.weight.detach().clone())
        network.config.tie_word_embeddings = False
    with torch.no_grad():
        words.weight.copy_(corrected(words.weight, mask, tokenizer.all_special_ids))
    setattr(network.config, FLAG, True)


def corrected(
    table: Tensor,
    mask: int,
    special: Collection[int] = (),
    *,
    selected: float = SELECTED,
    masked: float = MASKED,
    random: float = RANDOM,
) -> Tensor:
    """`(1 - s) e_i + s (m e_mask + r mean_j e_j + (1 - m - r) e_i)`, a new table.

    With BERT's rates `0.865 e_i + 0.12 e_mask + 0.015 mean`. All vectors are those before.

    Args:
        table: of the words, [words, width].
        mask: row of the mask.
        special: rows that are never masked, and stay.
        selected: s, share of words that are looked at.
        masked: m, of these, share that is masked.
        random: r, of these, share that becomes any word.
    """
    kept = 1 - selected * (masked + random)
    moved = kept * table + selected * (masked * table[mask] + random * table.mean(0))
    rows = torch.tensor(sorted(special), dtype=torch.long, device=table.device)
    moved[rows] = table[rows]
    return moved
