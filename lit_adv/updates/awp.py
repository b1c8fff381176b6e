"""Adversarial weight perturbation: Wu, Xia, Wang, NeurIPS 2020, arXiv:2004.05884."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_adv import foreach
from lit_adv.ranges import at_least, one_of
from lit_adv.updates.update import SecondLook, over


class AWP(SecondLook):
    """Steps along `grad L(theta + v)`; by tensor, `v = step_size * ||theta|| * g / ||g||`, bounded.

    Every matrix of weights has its own relative radius; biases and norms stay. The inputs are
    perturbed anew at the displaced weights (in the paper they stay those of theta). Competition
    winners use it on plain fine-tuning from a later step on, with `bound="weight"`: no weight
    moves by more than radius times its own size, which makes v nearly `radius * |theta| * sign(g)`
    when the step is long.

    Cost: twice the method's passes, at the steps that take a second look.

    Args:
        radius: gamma, largest displacement relative to the tensor (or weight); 0 = a plain step.
            The paper uses 0.005 on images; a word table takes all of it in the few rows of a batch.
        step_size: eta, relative length of the one step; the competition form uses 1.
        bound: `tensor`: `||v|| <= radius * ||theta||` (the paper); `weight`:
            `|v_i| <= radius * |theta_i|`.
        start_step: plain optimizer steps before the first second look.
        every_n_steps: take one at every n-th step; the others are plain.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    seeks_worst = True

    def __init__(
        self,
        radius: float = 0.001,
        *,
        step_size: float = 0.001,
        bound: Literal["tensor", "weight"] = "tensor",
        start_step: int = 0,
        every_n_steps: int = 1,
    ) -> None:
        super().__init__(start_step, every_n_steps)
        self.radius = at_least(0, "update.radius", radius)
        self.step_size = at_least(0, "update.step_size", step_size)
        self.bound = one_of(("tensor", "weight"), "update.bound", bound)

    def move(self, weights: Sequence[Tensor], grads: Sequence[Tensor], norm: Tensor) -> None:
        for weight, grad in zip(weights, grads, strict=True):
            if weight.ndim < 2:
                continue
            size, relative = foreach.norm([weight]), self.step_size
            if self.bound == "tensor":  # the projection of the one step is its length
                relative = min(self.step_size, self.radius)
            step = grad * (size * over(relative, foreach.norm([grad]))).to(grad.dtype)
            if self.bound == "weight":
                box = self.radius * weight.abs()
                step = torch.clamp(step, -box, box)
            weight.add_(step)
