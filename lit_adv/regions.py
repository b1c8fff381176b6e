"""Layers of a network that run as one piece: compiled, or recomputed in the backward pass.

Perturbations enter by hooks, and methods listen to layers and end passes at them by hooks: new ones
in every pass. A compiled network would not see a hook that was not there when it was compiled, and
one that saw it would be compiled anew in every pass. So the layers are compiled, each for itself,
within their hooks; what lies between them, and the embeddings, run as before. All layers of one
class share what is compiled.
"""

from collections.abc import Callable, Iterator
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import nn

from lit_adv import attention

VARIANTS = 64
"""Ways to run one class of layers: with and without weights that train, padding, dropout, ..."""


def prepare(
    network: nn.Module,
    *,
    compile: bool = False,
    gradient_checkpointing: bool = False,
    backend: str | Callable[..., Any] = "inductor",
) -> None:
    """Compile the stacked layers, or let them recompute their activations, in place.

    Names and weights stay what they are; a copy is compiled as well, a pickled network is not.

    Args:
        network: before its first pass.
        compile: by torch.compile, for batches of all sizes.
        gradient_checkpointing: a layer keeps its input only.
        backend: of torch.compile.

    Raises:
        ValueError: the network has no stack of layers, or cannot recompute them.
    """
    name = type(network).__name__
    if compile:
        stacked = list(_stacked(network))
        if not stacked:
            raise ValueError(f"model.compile=true: {name} has no stack of layers; set it to false")
        from torch._dynamo import config as dynamo  # here: more than a second
        from torch._functorch import config as functorch

        # At the default of 8 the ninth variant would run uncompiled, under other dropout masks.
        dynamo.cache_size_limit = max(dynamo.cache_size_limit, VARIANTS)
        functorch.donated_buffer = False  # or no graph may be passed through twice
        for layer in stacked:
            layer.forward = MethodType(_compiled(type(layer), backend), layer)
    if gradient_checkpointing:
        enable = getattr(network, "activation_checkpointing_enable", None)
        enable = enable or getattr(network, "gradient_checkpointing_enable", None)
        if enable is None or not getattr(network, "supports_gradient_checkpointing", True):
            raise ValueError(
                f"model.gradient_checkpointing=true: {name} cannot recompute its layers; "
                "set it to false"
            )
        # A compiled layer is recomputed by its compiled backward pass, whose kernels are settled.
        options = {} if compile else {"context_fn": attention.as_now}
        enable({"use_reentrant": False, **options})
        # It hooks the embeddings, for the reentrant kind: graphs would reach to frozen ones.
        network.disable_input_require_grads()  # pyright: ignore[reportCallIssue]
    if compile or gradient_checkpointing:
        _drop_caches(network)


def compiled(network: nn.Module) -> bool:
    """Whether the network, or a part of it, is compiled."""
    return any(_whole(module) or _within(module) for module in network.modules())


def check(network: nn.Module, place: nn.Module, key: str) -> None:
    """Refuse a place whose hooks would not be run, or not run again where it is recomputed.

    Args:
        network: all of it.
        place: the module to perturb or to listen to.
        key: the setting that names it, and its value.

    Raises:
        ValueError: the place lies inside a compiled or recomputed layer.
    """
    for name, module in network.named_modules():
        if _whole(module) and place in module.modules():
            raise ValueError(
                f"{key}: lies within what torch.compile made of {name or 'the network'}, which "
                "sees no hooks; compile its layers by lit_adv.regions.prepare(network, "
                "compile=True)"
            )
        if not (_recomputed(module) or _within(module)) or place is module:
            continue
        if place in module.modules():
            switch = "compile" if _within(module) else "gradient_checkpointing"
            does = "compiled as one piece" if _within(module) else "recomputed without hooks"
            raise ValueError(
                f"{key}: lies inside {name}, which is {does}; name that layer itself, or a module "
                f"outside of all layers, or set model.{switch}=false"
            )


def _stacked(network: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules."""
    for child in network.children():
        yield from child if isinstance(child, nn.ModuleList) else _stacked(child)


def _drop_caches(network: nn.Module) -> None:
    # Decoders would fill theirs a second time, and be compiled for each of their layers.
    for module in network.modules():
        config = getattr(module, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False  # pyright: ignore[reportOptionalMemberAccess]


@cache
def _compiled(kind: type[nn.Module], backend: str | Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(kind.forward, backend=backend, dynamic=True)


def _within(module: nn.Module) -> bool:
    return hasattr(module.forward, "_torchdynamo_orig_callable")


def _whole(module: nn.Module) -> bool:
    # By name: importing the class would cost those a second who do not compile.
    optimized = type(module).__name__ == "OptimizedModule"
    return optimized or module._compiled_call_impl is not None


def _recomputed(module: nn.Module) -> bool:
    # By name, as above: who has such a layer has imported its class.
    named = any(kind.__name__ == "GradientCheckpointingLayer" for kind in type(module).__mro__)
    return named and bool(getattr(module, "gradient_checkpointing", False))
