"""ASAM: Kwon, Kim, Park, Choi, ICML 2021, arXiv:2102.11600."""

from collections.abc import Sequence

from torch import Tensor

from lit_adv import foreach
from lit_adv.ranges import at_least
from lit_adv.updates.update import SecondLook, over


class ASAM(SecondLook):
    """SAM in units of the weights: `eps = radius * T^2 g / ||T g||`, `T = |theta| + eta`.

    Rescaling two layers against each other, which leaves the network's function as it is, then
    leaves the displacement's effect as it is too (for eta = 0). The authors' code
    (SamsungLabs/ASAM dc9b513) has T = 1 for biases; a popular one (davda54/sam) has no eta.

    Cost: twice the method's passes.

    Args:
        radius: rho, with `||T^-1 eps|| = rho`; 0 = a plain step.
        eta: keeps weights of size zero in the game; the paper uses 0.01.
        start_step: plain optimizer steps before the first second look.
        every_n_steps: take one at every n-th step; the others are plain.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    seeks_worst = True

    def __init__(
        self,
        radius: float = 0.5,
        *,
        eta: float = 0.01,
        start_step: int = 0,
        every_n_steps: int = 1,
    ) -> None:
        super().__init__(start_step, every_n_steps)
        self.radius = at_least(0, "update.radius", radius)
        self.eta = at_least(0, "update.eta", eta)

    def move(self, weights: Sequence[Tensor], grads: Sequence[Tensor], norm: Tensor) -> None:
        for weight, grad in zip(weights, grads, strict=True):
            grad.mul_(weight.abs() + self.eta)  # T g
        scale = over(self.radius, foreach.norm(grads))  # rho / ||T g||
        for weight, grad in zip(weights, grads, strict=True):
            size = weight.abs() + self.eta
            weight.addcmul_(size.mul_(grad), scale.to(grad.dtype))  # theta + rho T^2 g / ||T g||
