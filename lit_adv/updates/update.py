"""Update: how often an effective batch is looked at, and where from, before the weights step."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_adv import foreach
from lit_adv.onset import Onset
from lit_adv.window import Backward


class Update:
    """Base: one look at the effective batch, one step of the optimizer.

    A second look passes over the same micro-batches again, with the same dropout masks and noise,
    while the weights stand elsewhere. However many looks, it is one counted optimizer step.
    """

    seeks_worst: ClassVar[bool] = False
    """The first look is an adversary's: the weights' flood is no business of it."""

    steps_first: ClassVar[bool] = False
    """The gradient of the first look is stepped along: it is masked and clipped like any other."""

    needs_optimizer: ClassVar[bool] = False
    """Whether rates or states of the optimizer matter."""

    def looks_again(self, step: int) -> bool:
        """Whether optimizer step number `step` (from 0) takes a second look."""
        return False

    def displaced(
        self, weights: Sequence[Tensor], optimizer: Optimizer
    ) -> AbstractContextManager[None]:
        """Around the second look: moves the weights by their `.grad`, and empties it.

        When the block ends, `.grad` is what the optimizer steps along.
        """
        return nullcontext()

    def stepping(self, optimizer: Optimizer, step: int) -> AbstractContextManager[None]:
        """Around the optimizer's step number `step` (from 0)."""
        return nullcontext()

    def forward(self) -> AbstractContextManager[Any]:
        """Around every forward pass."""
        return nullcontext()

    def backward(self, backward: Backward, weights: Sequence[Tensor]) -> Backward:
        """What is called with the scalar to differentiate."""
        return backward


class SecondLook(Update):
    """Base of updates whose step uses the gradient at displaced weights.

    Cost: the method's passes twice, at the steps that take a second look.

    Args:
        start_step: plain optimizer steps before the first second look.
        every_n_steps: take one at every n-th step; the others are plain.

    Raises:
        ValueError: one of them lies outside its range.
    """

    def __init__(self, start_step: int = 0, every_n_steps: int = 1) -> None:
        self.onset = Onset(start_step, every_n_steps, group="update")

    def looks_again(self, step: int) -> bool:
        return self.onset.attacks(step)

    @contextmanager
    def displaced(self, weights: Sequence[Tensor], optimizer: Optimizer) -> Iterator[None]:
        moving = [weight for weight in weights if weight.grad is not None]
        # Restored by copy: adding and subtracting would leave rounding behind.
        saved = [weight.detach().clone() for weight in moving]
        try:
            with torch.no_grad():
                grads = [weight.grad for weight in moving if weight.grad is not None]
                norm = foreach.norm(grads)
                _fill(grads, ~norm.isfinite())  # after an overflow of the loss scale nothing moves
                self.move(moving, grads, norm)
            del grads  # of the model's size, like those of the second look
            for weight in weights:
                weight.grad = None
            torch.clear_autocast_cache()  # it may hold half-precision copies from before
            yield
        finally:
            with torch.no_grad():
                foreach.copy_(moving, saved)
            torch.clear_autocast_cache()

    def move(self, weights: Sequence[Tensor], grads: Sequence[Tensor], norm: Tensor) -> None:
        """Move the weights, in place, to where the second look is taken from.

        Args:
            weights: those with a gradient.
            grads: theirs; they may be overwritten.
            norm: of all gradients together.
        """
        raise NotImplementedError


def shift(weights: Sequence[Tensor], grads: Sequence[Tensor], scale: Tensor) -> None:
    """`theta <- theta + scale * g`, in place."""
    for weight, grad in zip(weights, grads, strict=True):
        weight.addcmul_(grad, scale.to(grad.dtype))


def over(size: float, norm: Tensor) -> Tensor:
    """`size / norm`, and 0 where there is nothing to divide by."""
    usable = (norm > 0) & norm.isfinite()
    return torch.where(usable, size / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0)


def _fill(grads: Sequence[Tensor], where: Tensor) -> None:
    for grad in grads:
        grad.masked_fill_(where, 0)
