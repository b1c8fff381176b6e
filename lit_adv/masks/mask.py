"""Mask: which weights take part in an optimizer step."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from lit_adv.ranges import at_least
from lit_adv.tasks.task import Batch, Task


class Mask:
    """Base: all weights move."""

    acts: bool = False
    """Whether any gradient is masked."""

    def begin(self, task: Task, batches: Callable[[], Iterable[Batch]]) -> None:
        """Before the first step.

        Args:
            task: the network and its losses.
            batches: one pass over the training set, on the task's device.
        """

    def apply(self, task: Task, step: int) -> Tensor:
        """Mask the weights' `.grad` at optimizer step number `step`; returns the share kept."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to know of it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What the checkpoint knows."""


def check_share(share: float) -> float:
    """The share of weights that move.

    Raises:
        ValueError: it does not lie in (0, 1].
    """
    if not 0 < at_least(0, "mask.share", share) <= 1:
        raise ValueError(f"mask.share={share}: needs to lie above 0 and at most at 1 (all weights)")
    return share


def chosen(task: Task, only: str) -> Mapping[str, Tensor]:
    """The weights that train and whose name contains `only`.

    Raises:
        ValueError: there are none.
    """
    named = {name: w for name, w in task.named_parameters() if w.requires_grad}
    weights = {name: weight for name, weight in named.items() if only in name}
    if not weights:
        names = ", ".join(list(named)[:3])
        raise ValueError(f"mask.only={only}: no weight has this in its name, as {names} have")
    return weights
