"""NEFTune, noisy embeddings: Jain et al., ICLR 2024, arXiv:2310.05914."""

from typing_extensions import Unpack

from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.onset import Timing
from lit_adv.ranges import at_least
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class Noise(FineTuner):
    """`L(e + delta)`, `delta ~ U(-1, 1) * alpha / sqrt(tokens * width)` of each example.

    So `||delta|| <= alpha`, and alpha / sqrt(3) in the root mean square, whatever the length. Only
    while training, and never on padding: the port in transformers counts padding as tokens and puts
    noise on it. The authors' code (neelsjain/NEFTune 09d4909) adds noise only under FSDP and
    silently none otherwise.

    Passes per batch: 1 forward, 1 backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        alpha: size of the noise of one example, in units of the word embeddings; 0 = none. The
            paper tries 5, 10 and 15 on language models.
        timing: see FineTuner.

    Raises:
        ValueError: alpha is negative.
    """

    passes = "one"

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        alpha: float = 5.0,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(task, descent, **timing)
        self.alpha = at_least(0, "method.alpha", alpha)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.sample(batch, self.alpha)
        with self.one_batch():  # a proximal penalty passes at the clean input as well
            losses = self.losses(batch, delta)  # L(e + delta)
            self.note("loss/adversarial", losses.mean())
            return self.descend(batch, losses, delta=delta)
