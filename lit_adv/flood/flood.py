"""Flood: which slope a loss has for the weights, +1 (descend it) or -1 (climb it)."""

import math
from typing import Any, Literal

import lightning as L
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

    @property
    def acts(self) -> bool:
        """Whether it may ever turn a step uphill."""
        return self.of is not None

    def callbacks(self) -> list[L.Callback]:
        """What has to watch the training for it."""
        return []

    def note(self, loss: Tensor) -> None:
        """Hear the mean loss of an effective batch, []."""

    def check(self, chance: float | None) -> None:
        """Refuse a level at which there is nothing to learn.

        Args:
            chance: the loss of a predictor that ignores its input; None = unknown.

        Raises:
            ValueError: the level is not below it.
        """
        if self.level is not None and chance is not None and self.level >= chance:
            raise ValueError(
                f"flood.b={self.level}: not below {chance:.3f}, the loss of a predictor that "
                "ignores its input, so there would be nothing to learn; choose a lower level"
            )

    def outcome(self) -> dict[str, Any]:
        """What there is to know of it after the training."""
        return {} if self.level is None else {"b": self.level}

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
