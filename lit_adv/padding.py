"""Padding: the side it stands at and its token, so that a text is answered as it is alone."""

from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv.adapters import inner


def side(network: nn.Module) -> str:
    """`right`, whatever its tokenizer was last used for, unless the network goes by the last place.

    Tokenizers of decoders are often left padding at the left, which generation needs. There GPT-2
    counts places from the padding on, BERT and its relatives answer at a padding, and what is said
    of a text depends on how long the others in its batch are. At the right none of that happens:
    encoders are told what is padding, decoders do not see it, and find the last real token. XLNet
    alone answers at the last place, whatever is there.
    """
    config: Any = getattr(inner(network), "config", None)
    return "left" if getattr(config, "summary_type", None) == "last" else "right"


def agree(network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Network and tokenizer call one token padding, or a network would not find the end of texts.

    A tokenizer that has none, as those of decoders, takes its end of texts: what is masked may be
    any token.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    config: Any = getattr(inner(network), "config", None)
    if config is not None and tokenizer.pad_token_id is not None:
        config.pad_token_id = tokenizer.pad_token_id
