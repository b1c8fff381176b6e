"""Proximal: a penalty on how far predictions move from those of reference weights."""

from typing import Any

from torch import Tensor

from lit_adv.proximal.teacher import Teacher
from lit_adv.ranges import at_least
from lit_adv.tasks.task import Batch, Task


class Proximal:
    """Base: `weight * mean_b ls(f(x_b; theta), f(x_b; theta_ref))`, the reference detached.

    `ls` is the task's divergence (symmetric KL, or squared difference). The reference answers in
    evaluation mode, at the clean inputs. Subclasses say how the reference follows the weights.

    Args:
        weight: mu, per nat of divergence; 0 = no penalty and no reference.

    Raises:
        ValueError: weight is negative.
    """

    def __init__(self, weight: float) -> None:
        self.weight = at_least(0, "proximal.weight", weight, "0 = no penalty")
        self.teacher: Teacher | None = None
        self._saved: dict[str, Tensor] | None = None

    def begin(self, task: Task) -> None:
        """The reference starts as the weights are, or as a checkpoint has it.

        Raises:
            ValueError: the checkpoint's reference is one of other weights.
        """
        self.teacher = Teacher(task)
        if self._saved is not None:
            self.teacher.restore(self._saved)
            self._saved = None

    def divergence(self, task: Task, batch: Batch, logits: Tensor) -> Tensor:
        """Divergence of these clean predictions from the reference's, [batch]."""
        assert self.teacher is not None, "begin() comes first"
        return task.divergence(logits, self.teacher.logits(task, batch), batch)

    def follow(self, task: Task, step: int, total_steps: int) -> None:
        """After optimizer step number `step` (from 1) of `total_steps`: move the reference."""

    def state_dict(self) -> dict[str, Any]:
        """The reference weights, for the checkpoint."""
        weights = self._saved if self.teacher is None else self.teacher.whole
        return {} if weights is None else {"weights": dict(weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reference weights, from a checkpoint; `begin` takes them to the network's device."""
        self._saved = state.get("weights")
