"""Flooding: Ishida et al., ICML 2020, arXiv:2002.08709."""

from typing import Literal

from torch import Tensor

from lit_adv.flood.flood import Flood, check_level
from lit_adv.functional import reduction
from lit_adv.ranges import one_of
from lit_adv.tasks.task import Batch


class Fixed(Flood):
    """`|L - b| + b`, where L is the mean task loss of the whole effective batch.

    Below the level the weights climb. L is taken over all passes, micro-batches and examples
    between two optimizer steps; the authors' code (takashiishida/flooding) knows single batches
    only, and codes derived from it take the absolute value of each process's micro-batch
    (`scope="micro"`), which is another objective: the absolute value does not commute with the
    mean. Of micro-batches of one example it is iFlood. Cost: nothing.

    Args:
        b: flood level, in the loss's unit; 0 floods nothing. The paper searches 0, 0.01, ..., 0.50.
        scope: `global`, the effective batch, or `micro`, each pass over a micro-batch by itself.

    Raises:
        ValueError: b is negative or not finite, or there is no such scope.
    """

    def __init__(self, b: float = 0.1, scope: Literal["global", "micro"] = "global") -> None:
        self.b = self.level = check_level("flood=fixed", b)
        self.scope = one_of(("global", "micro"), "flood.scope", scope)
        self.of = "batch" if scope == "global" else "example"

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        if self.scope == "micro":  # one slope for all examples of the pass
            loss = loss.mean().expand_as(loss)
        return reduction.slope(loss, self.b)
