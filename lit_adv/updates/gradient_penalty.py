"""Penalising the gradient's norm: Zhao, Zhang, Hu, ICML 2022, arXiv:2202.03599."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_adv import attention, foreach
from lit_adv.functional.precision import at_least_float32
from lit_adv.ranges import at_least, one_of
from lit_adv.updates.update import SecondLook, over, shift
from lit_adv.window import Backward


class GradientPenalty(SecondLook):
    """Descends `L + weight * ||grad_theta L||`, or `L + weight / 2 * ||grad_theta L||^2`.

    The gradient is that of the whole effective batch. `form="difference"`:
    `g + c * (g_plus - g)` with `g_plus` the gradient at `theta + radius * g / ||g||`, and
    `c = weight / radius` for the norm (c = 1 is SAM), `c = weight * ||g|| / radius` for the
    square; its error is O(radius). `form="exact"`: by double backward, at single-pass methods and
    without accumulation. The authors' code (zhaoyang-0204/gnp) takes `g / ||g||` for the first g,
    other than its paper; the penalty of bert4torch (a9dc244) is a constant.

    Cost: difference: twice the method's passes. Exact: one forward and three full backward passes,
    and two to three times the memory.

    Args:
        weight: lambda; 0 = a plain step at a higher price.
        radius: r, length of the displacement in the finite difference, of all weights together.
        of: `norm` or `square`.
        form: `difference` or `exact`.
        start_step: plain optimizer steps before the first penalty (difference only).
        every_n_steps: penalise at every n-th step (difference only).

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self,
        weight: float = 0.08,
        *,
        radius: float = 0.1,
        of: Literal["norm", "square"] = "norm",
        form: Literal["difference", "exact"] = "difference",
        start_step: int = 0,
        every_n_steps: int = 1,
    ) -> None:
        super().__init__(start_step, every_n_steps)
        self.weight = at_least(0, "update.weight", weight)
        self.radius = at_least(0, "update.radius", radius)
        self.of = one_of(("norm", "square"), "update.of", of)
        self.form = one_of(("difference", "exact"), "update.form", form)
        if form == "difference" and not radius > 0:
            raise ValueError(f"update.radius={radius}: a finite difference needs a length above 0")
        if form == "exact" and (start_step, every_n_steps) != (0, 1):
            raise ValueError(
                "update.form=exact: penalises at every step; start_step and every_n_steps are for "
                "update.form=difference"
            )

    def looks_again(self, step: int) -> bool:
        return self.form == "difference" and super().looks_again(step)

    @contextmanager
    def displaced(self, weights: Sequence[Tensor], optimizer: Optimizer) -> Iterator[None]:
        before = {w: _own(w.grad) for w in weights if w.grad is not None}
        norm = foreach.norm(list(before.values()))
        with super().displaced(weights, optimizer):
            yield
        share = torch.full_like(norm, self.weight / self.radius)
        share = share if self.of == "norm" else share * norm  # c
        with torch.no_grad():
            for weight in weights:  # g + c (g_plus - g); no gradient is one of zero
                grad, plus = before.get(weight), weight.grad
                if grad is None:
                    if plus is not None:
                        plus.mul_(share.to(plus.dtype))
                    continue
                grad.mul_((1 - share).to(grad.dtype))
                if plus is not None:
                    grad.addcmul_(plus, share.to(grad.dtype))
                weight.grad = grad

    def move(self, weights: Sequence[Tensor], grads: Sequence[Tensor], norm: Tensor) -> None:
        shift(weights, grads, over(self.radius, norm))

    def forward(self) -> AbstractContextManager[Any]:
        return attention.twice_differentiable() if self.form == "exact" else nullcontext()

    def backward(self, backward: Backward, weights: Sequence[Tensor]) -> Backward:
        if self.form == "difference":
            return backward

        def penalised(number: Tensor | None, **options: bool) -> None:
            assert number is not None, "methods of one pass leave it to the end"
            found = torch.autograd.grad(number, weights, create_graph=True, allow_unused=True)
            squares = [at_least_float32(g).square().sum() for g in found if g is not None]
            square = torch.stack(squares).sum()
            if self.of == "square":
                penalty = self.weight / 2 * square
            else:  # the root has no derivative at zero
                penalty = self.weight * torch.where(square > 0, square, 1).sqrt() * (square > 0)
            backward(number + penalty, **options)

        return penalised


def _own(grad: Tensor) -> Tensor:
    # One that is part of a bucket of gradients of all processes is overwritten by the next.
    return grad.clone() if grad._is_view() else grad
