"""Where a perturbation enters a network.

The perturbation is added by a forward hook on the token-embedding module, not through
`inputs_embeds`: that path changes position ids in some models, loses token types and tempts to
embed twice. The hook is removed when the block ends, also when it ends in an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_adv import regions
from lit_adv.adapters import inner


def find_embeddings(network: nn.Module, at: str | None = None) -> nn.Module:
    """The module whose output is perturbed.

    Args:
        network: any Hugging Face model, or any module if `at` is given.
        at: dotted name of a submodule; None asks the network (`get_input_embeddings()`, of the
            encoder in an encoder-decoder).

    Raises:
        ValueError: no such submodule, the network does not say where its embeddings are, or a
            hook there would not be run.
    """
    if at is not None:
        modules = {**dict(inner(network).named_modules()), **dict(network.named_modules())}
        if at not in modules:
            raise ValueError(f"model.at={at}: no such module; {_candidates(network)}")
        regions.check(network, modules[at], f"model.at={at}")
        return modules[at]

    owner: Any = network
    encoder: Any = getattr(inner(network), "get_encoder", lambda: None)()
    whole = getattr(getattr(network, "config", None), "is_encoder_decoder", False)
    if whole or hasattr(encoder, "embed_tokens"):  # a T5 for tokens has an encoder alone
        owner = encoder
    try:
        embeddings = owner.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embeddings = None
    if not isinstance(embeddings, nn.Module):
        raise ValueError(
            f"model.at=null: {type(network).__name__} does not name its token embeddings; "
            f"set model.at to a module's name; {_candidates(network)}"
        )
    regions.check(network, embeddings, "model.at=null")
    return embeddings


@contextmanager
def perturbed(
    embeddings: nn.Module,
    delta: Tensor | None,
    relative: bool = False,
    tokens_first: bool = False,
) -> Iterator[list[Tensor]]:
    """Add `delta` to the first output of this module inside the block; None adds nothing.

    Only the first call counts: an encoder-decoder that shares its table calls it again for the
    decoder's tokens. Yields a list that will hold the perturbed output.

    Args:
        embeddings: the module.
        delta: perturbation, [batch, tokens, width], or as many numbers for any other output.
        relative: delta is in units of each word vector's standard deviation, which is taken as a
            constant; otherwise in units of the vectors.
        tokens_first: the module's output is [tokens, batch, width]; see `tokens_first`.

    Raises:
        RuntimeError: the module was not called, so nothing was perturbed.
    """
    outputs: list[Tensor] = []
    if delta is None:
        yield outputs
        return

    def add(module: nn.Module, args: object, output: Any) -> Any:
        if outputs:
            return output
        clean = output if isinstance(output, Tensor) else output[0]
        unit = clean.detach().std(-1, keepdim=True) if relative else 1.0
        shape = clean.transpose(0, 1).shape if tokens_first else clean.shape
        added = _filled_up(delta, shape)
        added = added.transpose(0, 1) if tokens_first else added
        # In the network's own type: a float32 sum would switch off half-precision weights behind
        # it.
        outputs.append(clean + (unit * added).to(clean.dtype))
        return outputs[0] if isinstance(output, Tensor) else (outputs[0], *output[1:])

    handle = embeddings.register_forward_hook(add)
    try:
        yield outputs
    finally:
        handle.remove()
    if not outputs:
        raise RuntimeError(
            f"the perturbed module ({embeddings}) was not called by the network's forward; "
            "name one that is with model.at"
        )


def tokens_first(network: nn.Module) -> bool:
    """Whether this network's layers answer with [tokens, batch, width], as those of XLNet do."""
    return getattr(getattr(inner(network), "config", None), "model_type", "") == "xlnet"


def _filled_up(delta: Tensor, shape: torch.Size) -> Tensor:
    """In this shape: with zeros where the network has padded texts itself, to whole blocks.

    Longformer and BigBird do so at the right.
    """
    if delta.numel() == shape.numel() or len(shape) != 3 or delta.shape[-1] != shape[2]:
        return delta.reshape(shape)
    texts = delta.reshape(shape[0], -1, shape[2])  # of several texts per example, each by itself
    return F.pad(texts, (0, 0, 0, shape[1] - texts.shape[1]))


def _candidates(network: nn.Module) -> str:
    named = list(network.named_modules())
    tables = [name for name, module in named if isinstance(module, nn.Embedding)]
    if tables:
        return f"embedding modules here: {', '.join(tables)}"
    leaves = [name for name, module in named if name and not list(module.children())]
    return f"embedding modules here: none; others: {', '.join(leaves[:12]) or 'none'}"
