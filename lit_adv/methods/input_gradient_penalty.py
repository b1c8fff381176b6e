"""Input-gradient penalty: Drucker and LeCun 1992; Ross and Doshi-Velez, AAAI 2018,
arXiv:1711.09404."""

import torch
from typing_extensions import Unpack

from lit_adv import attention
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional.precision import at_least_float32
from lit_adv.onset import Timing
from lit_adv.ranges import at_least
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class InputGradientPenalty(FineTuner):
    """`mean_b [l_b + epsilon / 2 * ||grad_{e_b} l_b||^2]`, by double backward.

    An adversarial step `delta = epsilon * g` that is not normalised, held constant, has the same
    gradient to first order. The gradient is of the sum of losses, each example's own unless a batch
    norm or a contrastive loss ties it to the others; so epsilon does not depend on the batch size,
    and padding has none. The penalty of bert4torch (a9dc244) is made of gradients without a graph:
    a constant, whatever its epsilon.

    Passes per batch: 1 forward, 3 backward to the input (the gradient, and the two of its own
    derivative), 2 to the weights.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        epsilon: weight, in squared units of the word embeddings; 0 = plain fine-tuning at a higher
            price.
        timing: see FineTuner; the weight rises over the warm-up.

    Raises:
        ValueError: epsilon is negative.
    """

    differentiates_twice = True

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        epsilon: float = 1.0,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(task, descent, **timing)
        self.epsilon = at_least(0, "method.epsilon", epsilon)

    @property
    def cost(self) -> Cost:
        return Cost(1, 3, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.zeros(batch).requires_grad_()
        with attention.twice_differentiable():
            logits = self.logits(batch, delta)
        losses = self.task.losses(logits, batch)
        (grad,) = torch.autograd.grad(losses.sum(), delta, create_graph=True)  # grad_e l
        real = self.task.mask(batch).unsqueeze(-1)
        square = torch.where(real, at_least_float32(grad), 0).square().sum((1, 2))
        self.expect(self.epsilon)
        self.report(square.sqrt(), "perturbation/gradient")
        self.note("loss/clean", losses.mean())
        penalty = self.strength * self.epsilon / 2 * square
        return self.descend(batch, losses, penalty=penalty, clean=logits)
