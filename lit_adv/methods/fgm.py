"""FGM: Miyato, Dai, Goodfellow, ICLR 2017, arXiv:1605.07725."""

from typing import Literal

from torch import Tensor
from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import tables
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class FGM(FineTuner):
    """`L(e) + weight * L(e + delta)` with `delta = radius * g / ||g||_2`, `g = grad_e L(e)`.

    The norm is each example's own. Deviates from the paper in one point: the embeddings are not
    normalised, so the radius is in their units as they are. The widely copied recipe (bert4torch
    a9dc244) shifts the embedding table by one norm for the whole batch instead (`at="table"`):
    all occurrences of a word share one shift, and an example moves by about radius / sqrt(batch).
    That code also takes its direction from gradients of earlier micro-batches, and moves an output
    head tied to the table; here the table itself stays as it is.

    Passes per batch: 2 forward, 2 backward; the clean pass yields delta's gradient for free.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        radius: epsilon, length of the perturbation of one example (of the table, if that is what
            moves), in units of the word embeddings (a BERT word vector is about 1.4 long);
            0 = no perturbation.
        weight: of the adversarial loss; 0 = its gradient counts nothing.
        at: `words`, each position by itself, or `table`, whose rows go by `input_ids`.
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        radius: float = 0.1,
        weight: float = 1.0,
        at: Literal["words", "table"] = "words",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.radius = at_least(0, "method.radius", radius)
        self.weight = at_least(0, "method.weight", weight)
        self.at = one_of(("words", "table"), "method.at", at)

    @property
    def cost(self) -> Cost:
        return Cost(2, 2, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.zeros(batch).requires_grad_()
        with self.one_batch():
            clean = self.losses(batch, delta)  # L(e)
            grad = self.accumulate(batch, clean, wrt=delta)  # g, beside the weights' gradient
            delta = self.shift(batch, delta, grad)  # radius * g / ||g||
            adversarial = self.losses(batch, delta)  # L(e + delta)
            self.note("loss/clean", clean.mean())
            self.note("loss/adversarial", adversarial.mean())
            return self.descend(batch, adversarial, share=self.weight, delta=delta)

    def shift(self, batch: Batch, delta: Tensor, grad: Tensor) -> Tensor:
        """The step of length `radius`, of each example or of the table."""
        if self.at == "words":
            return self.ascend(batch, delta, grad, self.radius)
        self.expect(self.radius)
        direction = tables.unit(grad, self.task.words(batch), self.task.mask(batch))
        return self.strength * self.radius * direction
