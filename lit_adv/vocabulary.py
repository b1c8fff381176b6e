"""Vocabulary: whether a network has a vector for every token of its tokenizer that it meets."""

from typing import Any

from transformers import PreTrainedTokenizerBase


def check(network: Any, tokenizer: PreTrainedTokenizerBase, largest: int) -> None:
    """Refuse tokens without vectors, before a training meets them.

    Those that have been added to a tokenizer, padding often, may have none.

    Args:
        network: of transformers.
        tokenizer: that wrote the texts' tokens.
        largest: of the texts' tokens.

    Raises:
        ValueError: the token is named.
    """
    known = network.get_input_embeddings().weight.shape[0]
    padding: Any = tokenizer.pad_token_id
    token = max(largest, padding or 0)
    if token < known:
        return
    name = tokenizer.convert_ids_to_tokens(token)
    whose = "its padding" if token == padding else "a text's"
    raise ValueError(
        f"model.name: its tokenizer writes {name} as token {token} ({whose}), and the network has "
        f"vectors for {known}; enlarge them by network.resize_token_embeddings(len(tokenizer)), "
        "and save both"
    )
