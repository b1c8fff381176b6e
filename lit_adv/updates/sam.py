"""SAM: Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021, arXiv:2010.01412."""

from collections.abc import Sequence

from torch import Tensor

from lit_adv.ranges import at_least
from lit_adv.updates.update import SecondLook, over, shift


class SAM(SecondLook):
    """Steps along `grad L(theta + eps)`, `eps = radius * g / ||g||`, `g = grad L(theta)`.

    One norm over all weights; L is the method's whole objective over the effective batch, with its
    inputs perturbed anew at the displaced weights. A flood compares L(theta + eps) with its level
    and turns the second gradient only. Widely used codes restore the weights by subtraction
    (mosaicml/composer), which leaves rounding behind, and draw other dropout masks in the second
    pass.

    Cost: twice the method's passes.

    Args:
        radius: rho, length of the displacement of all weights together; 0 = a plain step.
        start_step: plain optimizer steps before the first second look.
        every_n_steps: take one at every n-th step; the others are plain.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    seeks_worst = True

    def __init__(
        self, radius: float = 0.05, *, start_step: int = 0, every_n_steps: int = 1
    ) -> None:
        super().__init__(start_step, every_n_steps)
        self.radius = at_least(0, "update.radius", radius)

    def move(self, weights: Sequence[Tensor], grads: Sequence[Tensor], norm: Tensor) -> None:
        shift(weights, grads, over(self.radius, norm))  # theta + rho * g / ||g||
