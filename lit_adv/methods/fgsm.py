"""FGSM: Goodfellow, Shlens, Szegedy, ICLR 2015, arXiv:1412.6572, on word embeddings."""

from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.onset import Options
from lit_adv.ranges import at_least
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class FGSM(FineTuner):
    """`clean * L(e) + adversarial * L(e + delta)` with `delta = radius * sign(grad_e L(e))`.

    The paper mixes both losses half and half; recipes for texts add them, as the default here
    does. With `clean = 0` the first pass takes no gradient of the weights.

    Passes per batch: 2 forward, 2 backward to the input, 2 to the weights (1 if clean = 0).

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        radius: epsilon, what every coordinate of a word vector moves by; the length of the
            perturbation of an example is radius * sqrt(tokens * width). 0 = no perturbation.
        clean: weight of the loss at the clean inputs; 0 = adversarial loss only.
        adversarial: weight of the loss at the perturbed inputs.
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        radius: float = 0.001,
        clean: float = 1.0,
        adversarial: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.radius = at_least(0, "method.radius", radius)
        self.clean = at_least(0, "method.clean", clean)
        self.adversarial = at_least(0, "method.adversarial", adversarial)
        if not clean + adversarial > 0:
            raise ValueError("method.clean=0, method.adversarial=0: nothing would be learned")

    @property
    def cost(self) -> Cost:
        return Cost(2, 2, 2 if self.clean else 1)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.zeros(batch).requires_grad_()
        with self.one_batch():
            if self.clean:
                losses = self.losses(batch, delta)  # L(e)
                self.note("loss/clean", losses.mean())
                grad = self.accumulate(batch, losses, self.clean, wrt=delta)
            else:
                grad = self.ascent(batch, delta)
            delta = self.ascend(batch, delta, grad, self.radius, norm="linf")  # radius * sign(g)
            losses = self.losses(batch, delta)  # L(e + delta)
            self.note("loss/adversarial", losses.mean())
            return self.descend(batch, losses, share=self.adversarial, delta=delta)
