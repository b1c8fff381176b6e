"""Layers of a network: found by name, listened to, cut off, and run without those behind them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from lit_adv import regions
from lit_adv.adapters import inner


def find_layer(network: nn.Module, name: str | None = None) -> nn.Module:
    """The module of this name, or the first of a network's stacked layers.

    Raises:
        ValueError: no such module, no stack of layers, or a hook there would not be run.
    """
    modules = {**dict(inner(network).named_modules()), **dict(network.named_modules())}
    if name is not None:
        if name not in modules:
            near = ", ".join(list(modules)[1:12])
            raise ValueError(f"method.split={name}: no such module; there are {near}, ...")
        regions.check(network, modules[name], f"method.split={name}")
        return modules[name]
    for module in modules.values():
        while isinstance(module, nn.ModuleList) and len(module):
            module = module[0]  # Funnel's layers stand in blocks
            if not isinstance(module, nn.ModuleList):
                return module
    raise ValueError(
        f"method.split=null: {type(network).__name__} has no stack of layers; name a module"
    )


def share_of_layers(network: nn.Module, last: nn.Module) -> float:
    """The share of a network's stacked layers that runs up to and with this one.

    A module that is none of them counts by its weights.
    """
    config = getattr(network, "config", None)
    layers = getattr(config, "num_hidden_layers", 0)  # more than there are where one serves for all
    if getattr(config, "is_encoder_decoder", False):
        layers += getattr(config, "decoder_layers", getattr(config, "num_decoder_layers", 0))
    for stack in network.modules():
        if isinstance(stack, nn.ModuleList) and last in list(stack):
            return (list(stack).index(last) + 1) / max(layers, len(stack))
    sizes = [sum(w.numel() for w in module.parameters()) for module in (last, network)]
    return sizes[0] / max(1, sizes[1])


@contextmanager
def captured(module: nn.Module) -> Iterator[list[Any]]:
    """A list of what this module answers inside the block."""
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda _, args, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def first_of(answers: list[Any], split: str | None) -> Any:
    """What a module answered first.

    Raises:
        ValueError: it was not called.
    """
    if not answers:
        raise ValueError(
            f"method.split={split}: the network does not call it; name one that it does"
        )
    return answers[0]


@contextmanager
def cut(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Backward passes end behind the first call of this module inside the block.

    Yields a list that will hold its answer, with its graph, and the leaf that goes on in its place.
    """
    answers: list[tuple[Tensor, Tensor]] = []

    def replace(_: nn.Module, args: object, output: Any) -> Any:
        if answers:
            return output
        answer = output if isinstance(output, Tensor) else output[0]
        leaf = answer.detach().requires_grad_()
        answers.append((answer, leaf))
        if isinstance(output, ModelOutput):
            return type(output)(**{**output, next(iter(output)): leaf})
        return leaf if isinstance(output, Tensor) else (leaf, *output[1:])

    handle = module.register_forward_hook(replace)
    try:
        yield answers
    finally:
        handle.remove()


def up_to(network: nn.Module, module: nn.Module, call: Callable[[], object]) -> Any:
    """What `module` answers within the call of a network, which ends there: the rest never runs.

    Raises:
        RuntimeError: the module was not called.
    """

    class Reached(Exception):
        pass

    outputs: list[Any] = []

    def stop(_: nn.Module, args: object, output: Any) -> None:
        outputs.append(output)
        raise Reached

    handle = module.register_forward_hook(stop)
    try:
        call()
    except Reached:
        return outputs[0]
    finally:
        handle.remove()
    raise RuntimeError(f"{module} was not called by the forward of {type(network).__name__}")
