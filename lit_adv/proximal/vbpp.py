"""Vanilla Bregman proximal point: Jiang et al., ACL 2020 (SMART), arXiv:1911.03437, 3.2."""

from lit_adv.proximal.proximal import Proximal
from lit_adv.tasks.task import Task


class VBPP(Proximal):
    """`theta_{t+1} = argmin F(theta) + mu * D(theta, theta_t)`, the argmin taken by `steps` steps.

    The reference is refreshed every `steps` optimizer steps. At the first step after a refresh the
    penalty and its gradient are zero (without dropout), so with one step it would do nothing at
    all. The authors published no code for it. Cost: one forward pass per batch, and a training
    pass at the clean input in methods that have none.

    Args:
        weight: mu, per nat of divergence; the paper uses 1.
        steps: S, optimizer steps per outer iteration; at least 2.

    Raises:
        ValueError: steps is below 2, or weight is negative.
    """

    def __init__(self, weight: float = 1.0, steps: int = 2) -> None:
        super().__init__(weight)
        if steps < 2:
            raise ValueError(
                f"proximal.steps={steps}: at the reference itself the penalty is exactly nothing; "
                "use at least 2, or proximal=none"
            )
        self.steps = steps

    def follow(self, task: Task, step: int, total_steps: int) -> None:
        if self.teacher is not None and step % self.steps == 0:
            self.teacher.follow(task, keep=0)
