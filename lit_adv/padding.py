"""The side that texts are padded at: one where a network answers each as it does alone."""

from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv.adapters import inner


def side(network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> str:
    """`right`, whatever the tokenizer was last used for, unless the network goes by the last place.

    Tokenizers of decoders are often left padding at the left, which generation needs. There GPT-2
    counts places from the padding on, BERT and its relatives answer at a padding, and what is said
    of a text depends on how long the others in its batch are. At the right none of that happens:
    encoders are told what is padding, decoders do not see it, and find the last real token. XLNet
    alone answers at the last place, whatever is there, and is padded as its tokenizer says.
    """
    config: Any = getattr(inner(network), "config", None)
    by_last_place = getattr(config, "summary_type", None) == "last"
    return tokenizer.padding_side if by_last_place else "right"
