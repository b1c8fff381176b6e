"""iFlood: Xie et al., ICLR 2022, "iFlood: A Stable and Effective Regularizer"."""

from torch import Tensor

from lit_adv.flood.flood import Flood, check_level
from lit_adv.functional import reduction
from lit_adv.tasks.task import Batch


class Individual(Flood):
    """`mean_i (|l_i - b| + b)`: every example is flooded by its own loss.

    In a method of several training passes each pass is flooded by itself, as if the perturbed
    copies were examples of a larger batch. Cost: nothing.

    Args:
        b: flood level, in the loss's unit; 0 floods nothing.

    Raises:
        ValueError: b is negative or not finite.
    """

    of = "example"

    def __init__(self, b: float = 0.1) -> None:
        self.b = self.level = check_level("flood=individual", b)

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        return reduction.slope(loss, self.b)
