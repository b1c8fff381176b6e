"""PGD: Madry et al., ICLR 2018, arXiv:1706.06083, on word embeddings."""

from typing import Literal

from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.recipe import LATER
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
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        form: Literal["A", "B"] = "B",
        steps: int = 3,
        step_size: float = 0.015,
        radius: float = 0.03,
        init_size: float = 0.0,
        norm: ball.Norm = "l2",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.form = one_of(("A", "B"), "method.form", form)
        self.steps = whole(0, "method.steps", steps)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)

    @property
    def cost(self) -> Cost:
        if self.form == "B":
            return Cost(self.steps + 1, self.steps + 1, 1)
        free = 1 if self.steps and not self.init_size else 0  # the clean pass ascends as well
        return Cost(self.steps + 2 - free, self.steps + 2 - free, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta, grad = self.zeros(batch), None
        with self.one_batch():
            if self.form == "A":
                clean = self.losses(batch, delta.requires_grad_())  # L(e)
                self.note("loss/clean", clean.mean())
                grad = self.accumulate(batch, clean, wrt=delta)
            if self.init_size:
                delta = self.sample(batch, self.init_size, self.radius, self.norm)  # delta_0
                grad = None
            for _ in range(self.steps):
                grad = self.ascent(batch, delta) if grad is None else grad
                delta = self.ascend(batch, delta, grad, self.step_size, self.radius, self.norm)
                grad = None
            losses = self.losses(batch, delta)  # L(e + delta_K)
            self.note("loss/adversarial", losses.mean())
            return self.descend(batch, losses, delta=delta)
