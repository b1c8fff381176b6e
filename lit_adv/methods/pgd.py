"""PGD: Madry et al., ICLR 2018, arXiv:1706.06083, on word embeddings."""

from typing import Literal

from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.tasks.task import Batch, Task


class PGD(FineTuner):
    """`min_theta max_{||delta|| <= radius} L(e + delta)`, the maximum by `steps` projected steps.

    Form B (the paper's) descends `L(e + delta_K)` alone. Form A (the widely copied
    restore-and-accumulate recipe) descends `L(e) + L(e + delta_K)`; its clean pass is also its
    first ascent when delta starts at zero. In both, the gradients of the ascents never reach the
    weights.

    Passes per batch, K = steps: K + 1 forward; form B: K backward to the input only and 1 full;
    form A: K - 1 to the input only and 2 full (one more forward and input backward with a random
    start).

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        form: `B` = adversarial loss only, `A` = clean plus adversarial.
        steps: K, ascent steps; 0 = plain fine-tuning (form A: twice its gradient).
        step_size: alpha, length of one step, in units of the word embeddings.
        radius: epsilon, per example; 0 = no perturbation, inf = unlimited.
        init_size: sigma of a uniform start inside the ball of this size; 0 = start at zero.
        norm: `l2`, `linf` (sign steps) or `soft-inf` (see functional.ball).
        same_dropout: all passes draw the same dropout masks.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self,
        task: Task,
        descent: Descent | None = None,
        *,
        form: Literal["A", "B"] = "B",
        steps: int = 3,
        step_size: float = 0.015,
        radius: float = 0.03,
        init_size: float = 0.0,
        norm: ball.Norm = "l2",
        same_dropout: bool = True,
    ) -> None:
        super().__init__(task, descent, same_dropout=same_dropout)
        self.form = one_of(("A", "B"), "method.form", form)
        self.steps = whole(0, "method.steps", steps)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        mask, grad = self.task.mask(batch), None
        delta = self.zeros(batch)
        with self.passes():
            if self.form == "A":
                clean = self.losses(batch, delta.requires_grad_())  # L(e)
                grad = self.accumulate(clean, wrt=delta)
            if self.init_size:
                start, grad = self.sample(batch, self.init_size, self.norm), None
                delta = ball.project(start, self.radius, self.norm)  # delta_0
            for _ in range(self.steps):
                grad = self.ascent(batch, delta) if grad is None else grad
                delta = ball.ascend(delta, grad, mask, self.step_size, self.radius, self.norm)
                grad = None
            self.descend(batch, self.losses(batch, delta), delta=delta)  # L(e + delta_K)
