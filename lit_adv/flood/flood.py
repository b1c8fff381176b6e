"""Flood: which slope a loss has for the weights, +1 (descend it) or -1 (climb it)."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_adv.ranges import at_least


class Flood:
    """Base: no flooding.

    A slope multiplies gradients of weights only: the adversary never sees it, and penalties
    (smoothness, proximal) are not flooded.
    """

    of: ClassVar[Literal["example", "batch"] | None] = None
    """Whose loss is compared with the level; None = nobody's."""

    level: float | None = None
    """b in nats (or squared units of the target); None = no flooding."""

    def slope(self, loss: Tensor) -> Tensor:
        """Slope of each loss given: of examples, [batch], or of the whole effective batch, []."""
        return torch.ones_like(loss)


def check_level(name: str, b: float) -> float:
    """The flood level as a number.

    Raises:
        ValueError: it is negative or not a finite number.
    """
    level = float(at_least(0, "flood.b", b, "0 floods nothing"))
    if math.isinf(level):
        raise ValueError(f"flood.b={b}: {name} needs a finite level")
    return level
