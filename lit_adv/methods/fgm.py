"""FGM: Miyato, Dai, Goodfellow, ICLR 2017, arXiv:1605.07725."""

from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.ranges import at_least
from lit_adv.tasks.task import Batch, Task


class FGM(FineTuner):
    """`L(e) + weight * L(e + delta)` with `delta = radius * g / ||g||_2`, `g = grad_e L(e)`.

    The norm is each example's own. Deviates from the paper in one point: the embeddings are not
    normalised, so the radius is in their units as they are. The widely copied recipe (bert4torch
    a9dc244) shifts the embedding table by one norm for the whole batch instead: about
    radius / sqrt(batch) per example, and taken from gradients of earlier micro-batches too.

    Passes per batch: 2 forward, 2 backward; the clean pass yields delta's gradient for free.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        radius: epsilon, length of the perturbation of one example, in units of the word embeddings
            (a BERT word vector is about 1.4 long); 0 = no perturbation.
        weight: of the adversarial loss; 0 = its gradient counts nothing.
        same_dropout: both passes draw the same dropout masks.

    Raises:
        ValueError: radius or weight is negative.
    """

    def __init__(
        self,
        task: Task,
        descent: Descent | None = None,
        *,
        radius: float = 0.1,
        weight: float = 1.0,
        same_dropout: bool = True,
    ) -> None:
        super().__init__(task, descent, same_dropout=same_dropout)
        self.radius = at_least(0, "method.radius", radius)
        self.weight = at_least(0, "method.weight", weight)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        mask = self.task.mask(batch)
        delta = self.zeros(batch).requires_grad_()
        with self.passes():
            clean = self.losses(batch, delta)  # L(e)
            grad = self.accumulate(clean, wrt=delta)  # g, beside the weights' gradient
            delta = ball.ascend(delta, grad, mask, self.radius)  # radius * g / ||g||
            adversarial = self.losses(batch, delta)  # L(e + delta)
            self.descend(batch, adversarial, share=self.weight, delta=delta)
