"""PGD in the space of word embeddings: how far from the margin the nearest mistake is."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_adv.functional import ball
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.standstill import evaluating, frozen
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch, Task


@dataclass(kw_only=True, frozen=True)
class EmbeddingPGD:
    """Projected ascent of each example's loss over ||delta|| <= radius (arXiv:1706.06083).

    An example is lost where any point on the way is misclassified, the clean one included. Words
    lie far apart, and no exchange of words moves the embeddings in just the worst direction: a
    cheap measure for validation, which says nothing of what people would read.

    Args:
        radius: epsilon, per example, in units of the word embeddings (or pixels).
        step_size: alpha, length of one step.
        steps: K; K + 1 forward and K backward passes, weights frozen.
        norm: `l2`, `linf` or `soft-inf` (see functional.ball).
        restarts: the first starts at zero, further ones at random places in the ball.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    radius: float = 0.1
    step_size: float = 0.05
    steps: int = 10
    norm: ball.Norm = "l2"
    restarts: int = 1

    needs = ()
    query_budget = None

    def __post_init__(self) -> None:
        at_least(0.0, "attack.radius", self.radius)
        at_least(0.0, "attack.step_size", self.step_size)
        whole(0, "attack.steps", self.steps)
        whole(1, "attack.restarts", self.restarts)
        one_of(("l2", "linf", "soft-inf"), "attack.norm", self.norm)

    def lost(
        self,
        task: Task,
        batch: Batch,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Which examples are misclassified somewhere on the way, [batch].

        Args:
            task: the classifier, of which neither weights nor statistics nor modes change.
            batch: with labels.
            temperature: T; the ascent is of the loss of softmax(logits / T).
            generator: of random starts.

        Raises:
            ValueError: the task is no classification.
        """
        if not isinstance(task, Classification):
            raise ValueError(
                f"attack=embedding_pgd: {type(task).__name__} has not one class per example"
            )
        with evaluating(task), frozen(task), torch.inference_mode(False), torch.enable_grad():
            # Lightning validates in inference mode, whose tensors cannot be kept for a gradient.
            batch = {name: column.clone() for name, column in batch.items()}
            mask, labels = task.mask(batch), batch["labels"]
            delta = torch.zeros(*mask.shape, task.width, device=mask.device)
            lost = torch.zeros_like(labels, dtype=torch.bool)
            for start in range(self.restarts):
                if start:
                    delta = ball.sample(
                        mask, task.width, self.radius, self.norm, generator=generator
                    )
                    delta = task.within(batch, delta)
                for step in range(self.steps + 1):
                    delta.requires_grad_()
                    logits = task.answer(batch, delta)
                    lost |= logits.argmax(1) != labels
                    if step < self.steps:
                        loss = task.losses(logits / temperature, batch).sum()
                        (grad,) = torch.autograd.grad(loss, delta)
                        delta = ball.ascend(
                            delta, grad, mask, self.step_size, self.radius, self.norm
                        )
                        delta = task.within(batch, delta)
        return lost


class AccuracyUnderPGD(Metric):
    """Share of examples that no point on the way of `EmbeddingPGD` turns; adds up over processes.

    In a `validation_step` of your own: `self.robust.update(self.task, batch)`, and
    `self.log("val/robust", self.robust)`.

    Args:
        attack: how.
        options: of torchmetrics' Metric.
    """

    higher_is_better = True
    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, attack: EmbeddingPGD | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.attack = attack or EmbeddingPGD()
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, task: Task, batch: Batch) -> None:
        """Attack one more batch."""
        # Of its own: a validation leaves the random numbers of training alone.
        generator = torch.Generator(batch["labels"].device).manual_seed(0)
        lost = self.attack.lost(task, batch, generator=generator)
        self.right += (~lost).sum()
        self.total += len(lost)

    def compute(self) -> Tensor:
        """The share."""
        return self.right / self.total
