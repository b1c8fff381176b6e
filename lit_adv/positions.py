"""Positions of words as a network counts them: where a text begins, and how long it may be."""

from typing import Any

import torch
from torch import nn

from lit_adv.adapters import inner


def first(network: nn.Module) -> int:
    """The position of a text's first token: 0, or the one behind the padding's.

    RoBERTa, MPNet, Longformer and their relatives give padding a row of the table of positions,
    and count words from behind it. They are known by how they count where no tokens are given.
    """
    for module in network.modules():
        if hasattr(module, "create_position_ids_from_inputs_embeds"):
            return int(getattr(module, "padding_idx", 0) or 0) + 1
    return 0


def room(network: nn.Module) -> int | None:
    """Tokens of the longest text by the network's configuration; None where it says of no limit."""
    config: Any = getattr(inner(network), "config", None)
    positions = getattr(config, "max_position_embeddings", None) or 0
    return positions - first(network) if positions > 0 else None  # XLNet's are -1


@torch.no_grad()
def check(network: nn.Module, longest: int, max_length: int) -> None:
    """Refuse a text for which a network has no positions, before it meets it.

    Those whose positions are relative or rotary answer to texts longer than their configuration
    says: whether one does is tried.

    Args:
        network: the whole.
        longest: tokens of the longest text.
        max_length: the setting that let it be so long.

    Raises:
        ValueError: the network fails at a text of that length.
    """
    most = room(network)
    if not most or longest <= most:
        return
    body: Any = getattr(inner(network), "base_model", network)
    tokens = torch.zeros(1, longest, dtype=torch.long, device=next(body.parameters()).device)
    try:
        with torch.random.fork_rng(devices=[]):
            body(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    except (IndexError, RuntimeError) as failure:
        raise ValueError(
            f"data.max_length={max_length}: the longest text has {longest} tokens, and "
            f"{type(inner(network)).__name__} positions for {most}; set it to at most {most}"
        ) from failure
