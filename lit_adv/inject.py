"""Where a perturbation enters a network, and what must stand still while it is looked for.

The perturbation is added by a forward hook on the token-embedding module, not through
`inputs_embeds`: that path changes position ids in some models, loses token types and tempts to
embed twice. Everything displaced here is put back when the block ends, also when it ends in an
error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def find_embeddings(network: nn.Module, at: str | None = None) -> nn.Module:
    """The module whose output is perturbed.

    Args:
        network: any Hugging Face model, or any module if `at` is given.
        at: dotted name of a submodule; None asks the network (`get_input_embeddings()`, of the
            encoder in an encoder-decoder).

    Raises:
        ValueError: no such submodule, or the network does not say where its embeddings are.
    """
    if at is not None:
        modules = dict(network.named_modules())
        if at not in modules:
            raise ValueError(f"model.at={at}: no such module; {_candidates(network)}")
        return modules[at]

    owner: Any = network
    if getattr(getattr(network, "config", None), "is_encoder_decoder", False):
        owner = owner.get_encoder()
    try:
        embeddings = owner.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embeddings = None
    if not isinstance(embeddings, nn.Module):
        raise ValueError(
            f"model.at=null: {type(network).__name__} does not name its token embeddings; "
            f"set model.at to a module's name; {_candidates(network)}"
        )
    return embeddings


@contextmanager
def perturbed(embeddings: nn.Module, delta: Tensor | None) -> Iterator[None]:
    """Add `delta` to the first output of this module inside the block; None adds nothing.

    Only the first call counts: an encoder-decoder that shares its table calls it again for the
    decoder's tokens.

    Raises:
        RuntimeError: the module was not called, so nothing was perturbed.
    """
    if delta is None:
        yield
        return
    calls = 0

    def add(module: nn.Module, args: object, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        # In the network's own type: a float32 sum would switch off half-precision weights behind
        # it.
        return output + delta.to(output.dtype) if calls == 1 else output

    handle = embeddings.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise RuntimeError(
            f"the perturbed module ({embeddings}) was not called by the network's forward; "
            "name one that is with model.at"
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Weights and batch-norm statistics stand still: for passes that only look for a perturbation.

    Without weights to train, autograd keeps neither their gradients nor the activations these would
    need: two thirds of the time of a training pass and about 0.7 of its memory.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    norms = [m for m in network.modules() if isinstance(m, BatchNorm) and m.training]
    statistics = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    # Copies move, the originals stay out of it: the graph made inside may be used after the block.
    for norm, saved in zip(norms, statistics, strict=True):
        for name, buffer in saved.items():
            setattr(norm, name, buffer.clone())
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        for norm, saved in zip(norms, statistics, strict=True):
            for name, buffer in saved.items():
                setattr(norm, name, buffer)


class RandomState:
    """The state of PyTorch's random stream at one moment, to draw the same dropout masks again."""

    def __init__(self, device: torch.device) -> None:
        self._host = torch.get_rng_state()
        self._device: tuple[torch.device, Tensor] | None = None
        if device.type == "cuda":
            self._device = (device, torch.cuda.get_rng_state(device))

    def rewind(self) -> None:
        """Put the stream back to that moment."""
        torch.set_rng_state(self._host)
        if self._device is not None:
            device, state = self._device
            torch.cuda.set_rng_state(state, device)


def _candidates(network: nn.Module) -> str:
    named = network.named_modules()
    tables = [name for name, module in named if isinstance(module, nn.Embedding)]
    return f"embedding modules here: {', '.join(tables) or 'none'}"
