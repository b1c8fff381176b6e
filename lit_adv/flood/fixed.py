"""Flooding: Ishida et al., ICML 2020, arXiv:2002.08709."""

from torch import Tensor

from lit_adv.flood.flood import Flood, check_level
from lit_adv.functional import reduction
from lit_adv.tasks.task import Batch


class Fixed(Flood):
    """`|L - b| + b`, where L is the mean task loss of the whole effective batch.

    Below the level the weights climb. L is taken over all passes, micro-batches and examples
    between two optimizer steps; the authors' code (takashiishida/flooding) knows single batches
    only, and codes derived from it take the absolute value of each micro-batch, which is another
    objective: the absolute value does not commute with the mean. Cost: nothing.

    Args:
        b: flood level, in the loss's unit; 0 floods nothing. The paper searches 0, 0.01, ..., 0.50.

    Raises:
        ValueError: b is negative or not finite.
    """

    of = "batch"

    def __init__(self, b: float = 0.1) -> None:
        self.b = self.level = check_level("flood=fixed", b)

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        return reduction.slope(loss, self.b)
