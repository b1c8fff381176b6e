"""R3F: Aghajanyan et al., ICLR 2021, arXiv:2008.03156."""

from typing import Literal

from torch import Tensor
from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class R3F(FineTuner):
    """`L(e) + weight * KL_S(f(e), f(e + z))`, z random noise in every coordinate.

    `KL_S` is the symmetric KL (squared difference for regression); both answers are trained. With
    the same dropout masks in both passes the divergence shows the noise alone; the authors' code
    (fairseq) draws two sets of masks, and then dropout outweighs noise of 1e-5 by far:
    `same_dropout=false` is that.

    Passes per batch: 2 forward, 2 backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        weight: lambda, per nat of divergence; 0 = plain fine-tuning at a higher price.
        noise: `normal`, N(0, size^2), or `uniform`, U(-size, size).
        size: sigma, in units of the word embeddings; 0 = none. The paper uses 1e-5.
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
        noise: Literal["normal", "uniform"] = "normal",
        size: float = 0.01,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.weight = at_least(0, "method.weight", weight)
        self.kind = one_of(("normal", "uniform"), "method.noise", noise)
        self.size = at_least(0, "method.size", size)

    @property
    def cost(self) -> Cost:
        return Cost(2, 2, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        self.expect(self.size)
        z = self.draw(batch)
        with self.one_batch():
            clean = self.logits(batch)  # f(e)
            noisy = self.logits(batch, z)  # f(e + z)
            losses = self.task.losses(clean, batch)
            self.note("loss/clean", losses.mean())
            self.note("loss/adversarial", self.task.losses(noisy, batch).mean())
            penalty = self.weight * self.task.divergence(clean, noisy, batch)  # lambda KL_S
            return self.descend(batch, losses, penalty=penalty, clean=clean, delta=z)

    def draw(self, batch: Batch) -> Tensor:
        """The noise z of the chosen kind."""
        if self.kind == "normal":
            return self.task.within(batch, self.gaussian(batch, self.size))
        return self.sample(batch, self.size, norm="linf")
