"""Plain fine-tuning: nothing ascends."""

from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Task


class FineTune(FineTuner):
    """`theta <- theta - lr * grad L`: the baseline of every method. Passes per batch: 1 F, 1 B.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
    """

    passes = "one"
    perturbs = False

    def __init__(self, task: Task = LATER, descent: Descent | None = None) -> None:
        super().__init__(task, descent)
