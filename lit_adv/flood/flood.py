"""Flood: which slope a loss has for the weights, +1 (descend it) or -1 (climb it)."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lit_adv.ranges import at_least
from lit_adv.tasks.task import Batch


class Flood:
    """Base: no flooding.

    A slope multiplies gradients of weights only: the adversary never sees it, and penalties
    (smoothness, proximal) are not flooded.
    """

    of: Literal["example", "batch"] | None = None
    """Whose loss is compared with the level; None = nobody's."""

    level: float | None = None
    """b in nats (or squared units of the target); None = no flooding."""

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        """Slope of each loss given: of examples, [batch], or of the whole effective batch, [].

        Args:
            loss: one or all.
            batch: where the losses are those of its examples.
        """
        return torch.ones_like(loss)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to know of it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What the checkpoint knows."""


def check_level(name: str, b: float) -> float:
    """The flood level as a number.

    Raises:
        ValueError: it is negative or not a finite number.
    """
    level = float(at_least(0, "flood.b", b, "0 floods nothing"))
    if math.isinf(level):
        raise ValueError(f"flood.b={b}: {name} needs a finite level")
    return level
