"""Backstitch: Wang, Peddinti, Xu, Zhang, Povey, Khudanpur, Interspeech 2017."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from lit_adv.ranges import at_least
from lit_adv.updates.rates import scaled_rates
from lit_adv.updates.update import SecondLook


class Backstitch(SecondLook):
    """A step back of `scale * lr`, then a step of `(1 + scale) * lr` by the gradient found there.

    Both on the same batch. For plain gradient descent this descends
    `L + scale * (1 + scale) * lr / 2 * ||grad L||^2` up to O(lr^3). The step back uses the
    direction the optimizer would take were its state not to move (for Adam and AdamW: the gradient
    over the root of its second moment, without momentum; Kaldi freezes its preconditioner in the
    same way); for other optimizers the gradient. Weight decay counts once, but for that
    of `torch.optim.Adam`, whose size Adam undoes (use AdamW). With momentum the
    equivalence is a heuristic; Kaldi forbids it.

    Cost: twice the method's passes, at the steps that take a step back.

    Args:
        scale: alpha, length of the step back relative to the learning rate; 0 = a plain step.
            Kaldi's recipes use 0.2 to 1.
        start_step: plain optimizer steps before the first step back.
        every_n_steps: the paper's n, step back at every n-th step.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    steps_first = True
    needs_optimizer = True

    def __init__(self, scale: float = 0.3, *, start_step: int = 0, every_n_steps: int = 1) -> None:
        super().__init__(start_step, every_n_steps)
        self.scale = at_least(0, "update.scale", scale)

    @contextmanager
    def displaced(self, weights: Sequence[Tensor], optimizer: Optimizer) -> Iterator[None]:
        moving = [weight for weight in weights if weight.grad is not None]
        saved = [weight.detach().clone() for weight in moving]
        try:
            self.climb(optimizer)
            for weight in weights:
                weight.grad = None
            torch.clear_autocast_cache()
            yield  # the second step starts where the first ended
        except BaseException:
            with torch.no_grad():
                for weight, before in zip(moving, saved, strict=True):
                    weight.copy_(before)
            raise

    @torch.no_grad()
    def climb(self, optimizer: Optimizer) -> None:
        """The step back: uphill."""
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.add_(direction(weight, optimizer, group), alpha=self.scale * group["lr"])

    def stepping(self, optimizer: Optimizer, step: int):
        factor = 1 + self.scale if self.looks_again(step) else 1.0
        # Decay is in proportion to the rate, and counts once for the two steps.
        return scaled_rates(optimizer, factor, decay=1 / factor)


def direction(weight: Tensor, optimizer: Optimizer, group: dict) -> Tensor:
    """The direction of this weight's next step, without momentum and without moving any state."""
    grad = weight.grad
    assert grad is not None
    if not isinstance(optimizer, Adam | AdamW):  # in older PyTorch AdamW is no Adam
        return grad
    beta, state = group["betas"][1], optimizer.state.get(weight, {})
    moment, step = state.get("exp_avg_sq"), state.get("step", torch.zeros(()))
    moment = grad.square() * (1 - beta) if moment is None else moment.lerp(grad.square(), 1 - beta)
    if group["amsgrad"] and state:
        moment = torch.maximum(moment, state["max_exp_avg_sq"])
    # 1 - beta^step without cancellation; on the device where the optimizer keeps its count.
    correction = -torch.expm1((step + 1) * (math.log(beta) if beta else -math.inf))
    return grad / ((moment / correction).sqrt_() + group["eps"])
