"""R-Drop: Liang et al., NeurIPS 2021, arXiv:2106.14448."""

from torch import nn
from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.onset import Timing
from lit_adv.ranges import at_least, share
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class RDrop(FineTuner):
    """`mean_i [(CE_1 + CE_2) / 2 + alpha / 4 * (KL(P_1 || P_2) + KL(P_2 || P_1))]`.

    P_1 and P_2 are the answers under two draws of dropout. It is half of the paper's
    `CE_1 + CE_2 + alpha / 2 * (KL + KL)`, so that the loss compares with plain fine-tuning; alpha
    and the minimiser are the paper's. Published codes reduce the two parts differently: the
    authors' Hugging Face part (dropreg/R-Drop) has an effective alpha of half the batch size, its
    README one of twice the batch size times alpha, bert4torch (a9dc244) of alpha over the number
    of classes. For regression the divergence is the squared difference. No side is detached.

    Passes per batch: 2 forward, 2 backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        alpha: weight of the divergence; 0 = two passes of plain fine-tuning. The paper uses 1 to 5.
        dropout: probability set in every `nn.Dropout` of the network (some networks, like BART,
            drop by function and keep their own); None = as they are.
        timing: see FineTuner; the weight rises over the warm-up.

    Raises:
        ValueError: alpha is negative, dropout outside [0, 1), or the network has no dropout.
    """

    inert = "the dropout layers drop nothing; look at method.dropout"

    perturbs = False
    compares_answers = True

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        alpha: float = 1.0,
        dropout: float | None = 0.1,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(task, descent, same_dropout=False, **timing)
        self.alpha = at_least(0, "method.alpha", alpha)
        layers = [module for module in task.modules() if isinstance(module, nn.Dropout)]
        if dropout is not None:
            share("method.dropout", dropout)
            for layer in layers:
                layer.p = dropout
        if alpha > 0 and not layers:
            raise ValueError("method=rdrop: the network has no dropout layers to draw from")

    @property
    def cost(self) -> Cost:
        return Cost(2, 2, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        first, second = self.logits(batch), self.logits(batch)  # P_1, P_2
        losses = (self.task.losses(first, batch) + self.task.losses(second, batch)) / 2
        divergence = self.task.divergence(first, second, batch)  # KL(P_1 || P_2) + KL(P_2 || P_1)
        self.expect(self.alpha)
        self.report(divergence, "perturbation/divergence")
        self.note("loss/clean", losses.mean())
        penalty = self.strength * self.alpha / 4 * divergence
        return self.descend(batch, losses, penalty=penalty, clean=first)
