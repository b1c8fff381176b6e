"""LLR, local linearity regularisation: Qin et al., NeurIPS 2019, arXiv:1907.02610."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv import attention
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class LLR(FineTuner):
    """`mean_b [l(e) + weight * gap(delta) + slope_weight * |<delta, grad_e l(e)>|]`.

    `gap(d) = |l(e + d) - l(e) - <d, grad_e l(e)>|` and `delta` maximises it in the ball; delta is
    held constant, the gradient is differentiated (double backward). At d = 0 the gap is flat, so
    the search starts at random. The authors' code (deepmind/local_linearity_regularizer 0471752)
    leaves the linear term out of the search, which then climbs the loss instead of the gap, and
    steps by Adam; a port (lolip 656616a) loses the linear term altogether.

    Passes per batch, M = steps: M + 2 forward, M + 4 backward to the input, 3 to the weights.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        weight: lambda, of the gap; 0 = none.
        slope_weight: mu, of the linear term; 0 = none. The paper has 4 and 3 for small images.
        steps: M, ascent steps; 0 = the random start.
        step_size: length of one step, in units of the word embeddings.
        radius: epsilon, per example; 0 = no perturbation.
        norm: `l2`, `linf` (the paper's, sign steps) or `soft-inf`.
        options: see FineTuner; without the same dropout masks the gap would measure dropout.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    differentiates_twice = True
    separates_losses = True

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        weight: float = 4.0,
        slope_weight: float = 3.0,
        steps: int = 2,
        step_size: float = 0.05,
        radius: float = 0.1,
        norm: ball.Norm = "l2",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.weight = at_least(0, "method.weight", weight)
        self.slope_weight = at_least(0, "method.slope_weight", slope_weight)
        self.steps = whole(0, "method.steps", steps)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)

    @property
    def cost(self) -> Cost:
        return Cost(self.steps + 2, self.steps + 4, 3)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        origin = self.zeros(batch).requires_grad_()
        # Fused attention draws other dropout masks: all passes, or the gap would measure these.
        with self.one_batch(), attention.twice_differentiable():
            clean = self.logits(batch, origin)
            losses = self.task.losses(clean, batch)  # l(e)
            (slope,) = torch.autograd.grad(losses.sum(), origin, create_graph=True)  # grad l(e)

            delta = self.sample(batch, self.radius, self.radius, self.norm)
            for _ in range(self.steps):
                grad = self.gap_ascent(batch, delta, losses.detach(), slope.detach())
                delta = self.ascend(batch, delta, grad, self.step_size, self.radius, self.norm)

            adversarial = self.losses(batch, delta)  # l(e + delta)
            linear = (delta * slope).sum((1, 2))  # <delta, grad l(e)>
            gap = (adversarial - losses - linear).abs()
            self.note("loss/clean", losses.mean())
            self.note("loss/adversarial", adversarial.mean())
            penalty = self.weight * gap + self.slope_weight * linear.abs()
        return self.descend(batch, losses, penalty=penalty, clean=clean, delta=delta)

    def gap_ascent(self, batch: Batch, delta: Tensor, clean: Tensor, slope: Tensor) -> Tensor:
        """Gradient of the gap with respect to delta."""

        def gap(logits: Tensor) -> Tensor:
            linear = (delta * slope).sum((1, 2))
            return (self.task.losses(logits, batch) - clean - linear).abs()

        return self.ascent(batch, delta, gap)
