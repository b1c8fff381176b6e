"""Momentum Bregman proximal point: Jiang et al., ACL 2020 (SMART), arXiv:1911.03437, 3.2."""

from lit_adv.proximal.proximal import Proximal
from lit_adv.tasks.task import Task


class MBPP(Proximal):
    """`mu * D(theta, reference)` with `reference <- beta * reference + (1 - beta) * theta`.

    The reference (a mean teacher) moves once per optimizer step. The authors published no code for
    it.
    Cost: one forward pass per batch, and a training pass at the clean input in methods that have
    none.

    Args:
        weight: mu, per nat of divergence; the paper uses 1.
        beta: momentum during the first part of the steps; 0 = the weights of the last step.
        late_beta: momentum afterwards; 1 = the reference no longer moves.
        switch: share of all optimizer steps after which `late_beta` rules.

    Raises:
        ValueError: a momentum or the share lies outside [0, 1], or weight is negative.
    """

    def __init__(
        self,
        weight: float = 1.0,
        beta: float = 0.99,
        late_beta: float = 0.999,
        switch: float = 0.1,
    ) -> None:
        super().__init__(weight)
        for name, value in (("beta", beta), ("late_beta", late_beta), ("switch", switch)):
            if not 0 <= value <= 1:
                raise ValueError(f"proximal.{name}={value}: needs to lie in [0, 1]")
        self.beta, self.late_beta, self.switch = beta, late_beta, switch

    def momentum(self, step: int, total_steps: int) -> float:
        """beta at optimizer step number `step` (from 1).

        >>> mbpp = MBPP()
        >>> mbpp.momentum(99, total_steps=1000), mbpp.momentum(101, total_steps=1000)
        (0.99, 0.999)
        """
        return self.beta if step <= round(self.switch * total_steps) else self.late_beta

    def follow(self, task: Task, step: int, total_steps: int) -> None:
        if self.teacher is not None:
            self.teacher.follow(task, keep=self.momentum(step, total_steps))
