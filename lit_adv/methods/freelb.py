"""FreeLB: Zhu et al., ICLR 2020, arXiv:1909.11764; FreeLB++: Li et al., EMNLP 2021,
arXiv:2108.12777."""

from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class FreeLB(FineTuner):
    """`(1/K) sum_{t<K} L(e + delta_t)`, `delta_{t+1} = Proj(delta_t + step_size * g_t / ||g_t||)`.

    Every pass trains and ascends at once, so the ascents cost nothing beside the K training
    passes. The authors' code (zhuchen03/FreeLB eb23701) counts `steps` in two ways: K passes with
    K - 1 ascents (its Hugging Face part, and here), or 1 + K passes (its fairseq part). There 0
    means an unlimited radius, and the start is not projected; here 0 means no perturbation, and it
    is. FreeLB++ is FreeLB with an unlimited radius and more steps (TextDefender 06a5068 has it as
    a setting of its FreeLB, too).

    Passes per batch: K forward, K backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        steps: K, training passes per batch; 1 = one pass at the random start.
        step_size: alpha, length of one ascent, in units of the word embeddings.
        radius: epsilon, per example; 0 = no perturbation, inf = unlimited.
        init_size: sigma, the uniform start has length sigma / sqrt(3) on average; 0 = start at
            zero.
        norm: `l2`, `linf` (sign steps) or `soft-inf` (see functional.ball).
        options: see FineTuner; the paper has the same dropout masks in all passes, as the default.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        steps: int = 3,
        step_size: float = 0.05,
        radius: float = 0.1,
        init_size: float = 0.05,
        norm: ball.Norm = "l2",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.steps = whole(1, "method.steps", steps, "for plain fine-tuning use method=finetune")
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)

    @property
    def cost(self) -> Cost:
        return Cost(self.steps, self.steps, self.steps)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        share = 1 / self.steps
        delta = self.sample(batch, self.init_size, self.radius, self.norm)  # delta_0
        with self.one_batch():
            for _ in range(self.steps - 1):
                losses = self.losses(batch, delta.requires_grad_())  # L(e + delta_t)
                grad = self.accumulate(batch, losses, share, wrt=delta)  # g += grad / K; g_t
                delta = self.ascend(batch, delta, grad, self.step_size, self.radius, self.norm)
            losses = self.losses(batch, delta)
            self.note("loss/adversarial", losses.mean())
            return self.descend(batch, losses, share=share, delta=delta)
