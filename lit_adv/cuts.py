"""Cuts: linear layers that all of a loss's dependence on its inputs goes through, found by looking.

What a layer is called says nothing of that. The graph of a pass does: without the layer's output no
way leads from the losses to the inputs.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lit_adv.functional import inequality, spectral
from lit_adv.functional.inequality import Terms


class Call(NamedTuple):
    """One call of a linear layer."""

    h: Tensor
    """What it was called with."""
    z: GradientEdge | None
    """Its answer's place in the graph, which works in place do not change; None = in none."""


@dataclass
class Heard:
    """One pass of a network."""

    inputs: list[Tensor] = field(default_factory=list)
    """What its derivatives are taken by, a leaf: x, if it was met."""
    calls: dict[str, list[Call]] = field(default_factory=dict)
    """Those of each layer."""


def linear(network: nn.Module, patterns: Sequence[str] | None = None) -> list[str]:
    """Names of the linear layers that are one of these, or match a regular expression; None = all.

    Raises:
        ValueError: one matches nothing.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if patterns is None:
        return names
    for pattern in patterns:
        if not any(_matches(pattern, name) for name in names):
            some = ", ".join(names[:12]) or "none"
            raise ValueError(f"layers={pattern}: no such linear layer; there are {some}, ...")
    return [name for name in names if any(_matches(pattern, name) for pattern in patterns)]


@contextmanager
def listening(network: nn.Module, start: nn.Module | None, names: Sequence[str]) -> Iterator[Heard]:
    """Listens to the pass inside the block, whose weights must not train.

    Args:
        network: all of it.
        start: the module whose first output is x; None = x is the first floating-point tensor that
            a module is called with.
        names: of the layers.
    """
    heard, marked = Heard(calls={name: [] for name in names}), []

    def begin(_: nn.Module, args: Any, output: Any) -> Tensor | None:
        if heard.inputs or not _real(output):
            return None
        heard.inputs.append(output.detach().requires_grad_())
        return heard.inputs[0].clone()  # what works in place may not begin at a leaf

    def enter(_: nn.Module, args: Any) -> None:
        x = next(filter(_real, args), None)
        if heard.inputs or x is None:
            return
        if not x.requires_grad:
            marked.append(x)
        # The tensor itself: its other uses, beside the module, must be seen as well.
        heard.inputs.append(x.requires_grad_())

    def note(_: nn.Module, args: Any, options: Any, z: Tensor, name: str) -> None:
        (h,) = (*args, *options.values())
        heard.calls[name].append(Call(h, get_gradient_edge(z) if z.requires_grad else None))

    if start is None:
        hooks = [m.register_forward_pre_hook(enter, prepend=True) for m in network.modules()]
    else:
        hooks = [start.register_forward_hook(begin)]
    for name in names:
        layer, hook = network.get_submodule(name), partial(note, name=name)
        hooks.append(layer.register_forward_hook(hook, prepend=True, with_kwargs=True))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
        for x in marked:
            x.requires_grad_(False)


def refusals(network: nn.Module, losses: Tensor, heard: Heard) -> dict[str, str]:
    """Why which of the layers are no cuts, by name; the others are.

    Args:
        network: all of it.
        losses: of the examples, [batch], from the pass that was heard; they depend on x.
        heard: that pass.
    """
    uses = Counter(id(w) for m in network.modules() for w in m.parameters(recurse=False))
    reasons: dict[str, str] = {}
    for name, calls in heard.calls.items():
        layer: Any = network.get_submodule(name)
        if type(layer).forward is not nn.Linear.forward:
            reasons[name] = f"{type(layer).__name__} does more than W h + b"
        elif uses[id(layer.weight)] > 1:
            reasons[name] = "another layer has the same weight: gradients may cancel out"
        else:
            reasons[name] = _reason(losses, heard.inputs[0], calls)
    return {name: reason for name, reason in reasons.items() if reason}


def terms(
    network: nn.Module,
    losses: Tensor,
    heard: Heard,
    names: Sequence[str],
    tolerance: float = 1e-4,
) -> dict[str, Terms]:
    """The inequality of every example at each of these cuts; see `functional.inequality`.

    Args:
        network: all of it.
        losses: of the examples, [batch], from the pass that was heard. They must not depend on one
            another's inputs.
        heard: that pass, by operations that can be differentiated twice.
        names: of the cuts.
        tolerance: of `||dh/dx||`; see `spectral.power_iteration`.
    """
    x, calls = heard.inputs[0], [heard.calls[name][0] for name in names]
    at: list[Any] = [x, *(call.z for call in calls)]
    x_grad, *z_grads = torch.autograd.grad(losses.sum(), at, retain_graph=True)
    found: dict[str, Terms] = {}
    for name, call, z_grad in zip(names, calls, z_grads, strict=True):
        layer: Any = network.get_submodule(name)
        found[name] = inequality.terms(
            x_grad,
            z_grad,
            call.h.detach(),
            layer.weight.detach(),
            spectral.jacobian(call.h, x, tolerance=tolerance),
            bias=layer.bias is not None,
        )
    return found


def _reason(losses: Tensor, x: Tensor, calls: list[Call]) -> str:
    if not calls:
        return "it is not called"
    if len(calls) > 1:
        return f"it is called {len(calls)} times in a pass: gradients may cancel out"
    h, z = calls[0]
    if h.shape[:-1] != losses.shape:
        return f"tokens share its weight (its input is {list(h.shape)}): gradients may cancel out"
    if z is None:
        return "it does not depend on the inputs"
    assert losses.grad_fn is not None
    if inequality.reaches(losses.grad_fn, get_gradient_edge(x).node, without=z.node):
        return "there is a way around it (a residual branch, attention, ...)"
    return ""


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or re.fullmatch(pattern, name) is not None


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
