"""Training with normal noise: Bishop, Neural Computation 1995, on word embeddings."""

from typing_extensions import Unpack

from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.onset import Timing
from lit_adv.ranges import at_least
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class Gaussian(FineTuner):
    """`L(e + delta)`, `delta ~ N(0, std^2)` in every coordinate of every real token.

    In expectation and to second order this is `L(e) + std^2 / 2 * laplacian_e L(e)`.

    Passes per batch: 1 forward, 1 backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        std: sigma, in units of the word embeddings (a coordinate of a BERT word vector has about
            0.05); 0 = none.
        timing: see FineTuner.

    Raises:
        ValueError: std is negative.
    """

    passes = "one"

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        std: float = 0.01,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(task, descent, **timing)
        self.std = at_least(0, "method.std", std)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        self.expect(self.std)
        delta = self.task.within(batch, self.gaussian(batch, self.std))
        with self.one_batch():  # a proximal penalty passes at the clean input as well
            losses = self.losses(batch, delta)  # L(e + delta)
            self.note("loss/adversarial", losses.mean())
            return self.descend(batch, losses, delta=delta)
