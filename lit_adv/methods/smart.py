"""SMART, smoothness-inducing regularisation: Jiang et al., ACL 2020, arXiv:1911.03437, 3.1."""

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class SMART(FineTuner):
    """`L + weight * mean_b max_{||delta_b|| <= radius} ls(f(e + delta), f(e))`.

    `ls` is the task's divergence: symmetric KL, or squared difference for regression. The maximum
    is sought from normal noise by `steps` steps `delta <- Proj(delta + step_size * g / ||g||)`,
    with `g = grad_delta ls(f(e + delta), f(e))`. Both answers are trained.

    The authors' code (namisan/mt-dnn 3228e7c) does something else: `update="renormalise"`, that is
    `delta <- (delta + step_size * g) / ||.||`, with a raw gradient many orders of magnitude below
    the noise, so that its perturbation is the normalised noise; and it detaches the target of both
    KLs (`detach_target`): per logit the gradient is then p - q, half of the whole near agreement.
    With the paper's constants (radius 1e-5) the regulariser is next to nothing. The presets
    smart/paper and smart/reference keep both. `relative` measures perturbations as SiFT does
    (DeBERTa, arXiv:2006.03654): ALUM (arXiv:2004.08994) and SiFT are relatives of this method.

    Passes per batch: steps + 2 forward, steps backward to the input only, 2 full.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        weight: lambda, per nat of divergence; 0 = plain fine-tuning at a higher price.
        steps: K, ascent steps; 0 = normal noise only.
        noise_std: sigma, standard deviation of the start in every coordinate; 0 = never leaves the
            start, where the divergence is flat.
        step_size: eta, size of one step, in units of the word embeddings.
        radius: epsilon, size of the perturbation in the norm; 0 = no perturbation, inf = unlimited.
        norm: `l2`, `linf` or `soft-inf`; the paper's ball is `linf`, its step `soft-inf`.
        per: whether sizes are measured per `example` or per `token`.
        update: `project`, or the authors' `renormalise`, which puts delta on the sphere of the
            radius.
        detach_target: each KL trains only its first argument, as in the authors' code.
        relative: noise, step and radius are in units of each word vector's standard deviation.
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    compares_answers = True

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        weight: float = 1.0,
        steps: int = 1,
        noise_std: float = 1e-4,
        step_size: float = 0.1,
        radius: float = 0.1,
        norm: ball.Norm = "l2",
        per: ball.Per = "example",
        update: Literal["project", "renormalise"] = "project",
        detach_target: bool = False,
        relative: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.weight = at_least(0, "method.weight", weight)
        self.steps = whole(0, "method.steps", steps)
        self.noise_std = at_least(0, "method.noise_std", noise_std)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)
        self.per: ball.Per = one_of(ball.PERS, "method.per", per)
        self.update = one_of(("project", "renormalise"), "method.update", update)
        self.detach_target = detach_target
        self.relative = relative

    @property
    def cost(self) -> Cost:
        return Cost(self.steps + 2, self.steps + 2, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.task.within(batch, self.gaussian(batch, self.noise_std))
        with self.one_batch():
            clean = self.logits(batch)  # f(e)
            still = clean.detach()
            if not self.steps:
                delta = ball.project(delta, self.strength * self.radius, self.norm, self.per)
                delta = self.task.within(batch, delta)
            for _ in range(self.steps):
                grad = self.ascent(batch, delta, lambda p: self.task.divergence(p, still, batch))
                delta = self.climb(batch, delta, grad)
            adversarial = self.logits(batch, delta)  # f(e + delta)
            smoothness = self.smoothness(adversarial, clean, batch)
            losses = self.task.losses(clean, batch)
            self.note("loss/clean", losses.mean())
            self.note("loss/adversarial", self.task.losses(adversarial, batch).mean())
            penalty = self.weight * smoothness
            return self.descend(batch, losses, penalty=penalty, clean=clean, delta=delta)

    def climb(self, batch: Batch, delta: Tensor, grad: Tensor) -> Tensor:
        """One ascent step of the chosen form."""
        sizes = (self.step_size, self.radius, self.norm, self.per)
        if self.update == "project":
            return self.ascend(batch, delta, grad, *sizes)
        free = self.task.mask(batch).unsqueeze(-1) & grad.isfinite().all((1, 2), keepdim=True)
        moved = torch.where(free, delta + self.strength * self.step_size * grad, 0).detach()
        on_sphere = self.strength * self.radius * ball.unit(moved, self.norm, self.per)
        return self.task.within(batch, on_sphere)

    def smoothness(self, adversarial: Tensor, clean: Tensor, batch: Batch) -> Tensor:
        """`ls` of every example, [batch]."""
        if not self.detach_target:
            return self.task.divergence(adversarial, clean, batch)
        towards = self.task.towards
        return towards(adversarial, clean, batch) + towards(clean, adversarial, batch)
