"""VAT, virtual adversarial training: Miyato, Maeda, Koyama, Ishii, TPAMI 2018, arXiv:1704.03976."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv import standstill
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.ranges import at_least, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class VAT(FineTuner):
    """`L + weight * mean KL(p(e) || p(e + r))`, `r = radius * unit(q)`, q by power iteration.

    `q_0 ~ N(0, I)`; `q_{i+1} = grad_u KL(p(e) || p(e + u))` at `u = xi * unit(q_i)`: one iteration
    multiplies by the curvature of the divergence. `p(e)` is held constant. Labels enter L only;
    with `batch["unlabelled"]` (a batch without labels, from `data.unlabelled`) the divergence is
    taken there instead. For regression it is the squared difference.

    The authors' TensorFlow code (takerum/vat_tf c5125d2) has xi = 1e-6, which float32 resolves
    badly; a popular port (VAT-pytorch 75a3974) has xi = 10, which is no derivative, draws other
    dropout masks for each pass and wipes gradients accumulated before.

    Passes per batch: steps + 2 forward, steps backward to the input only, 2 full; with unlabelled
    data one more forward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        weight: lambda, per nat of divergence; 0 = plain fine-tuning at a higher price.
        steps: power iterations; 0 = a random direction.
        xi: length of the probe, in units of the word embeddings; short against a sentence (about 8
            in BERT), long against rounding: in half precision take 0.5 or more, or some examples
            (5 of 32, at 0.01 in bfloat16) answer to it as to nothing, and r = 0.
        radius: epsilon, length of r, per example; 0 = no perturbation.
        relative: xi and radius are in units of each word vector's standard deviation (as in SiFT,
            DeBERTa, arXiv:2006.03654).
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    unlabelled = True

    compares_answers = True

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        weight: float = 1.0,
        steps: int = 1,
        xi: float = 0.01,
        radius: float = 0.1,
        relative: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.weight = at_least(0, "method.weight", weight)
        self.steps = whole(0, "method.steps", steps)
        self.xi = at_least(0, "method.xi", xi)
        self.radius = at_least(0, "method.radius", radius)
        self.relative = relative
        if not xi > 0:
            raise ValueError(f"method.xi={xi}: the divergence is flat at the clean input")

    @property
    def cost(self) -> Cost:
        return Cost(self.steps + 2, self.steps + 2, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        with self.one_batch():
            answers = self.logits(batch)
            losses = self.task.losses(answers, batch)
            self.note("loss/clean", losses.mean())
            virtual, clean = self.virtual(batch, answers)  # p(e)
            held = self.descent.proximal.weight > 0  # by the answers' graph, which is kept for it
            if not held:  # its graph goes before those of the other passes come
                self.accumulate(batch, losses)

            q = self.gaussian(virtual, 1.0)  # q_0
            for _ in range(self.steps):
                probe = self.probe(virtual, q)  # xi * unit(q)
                q = self.ascent(virtual, probe, lambda p: self.task.towards(p, clean, virtual))
            r = self.ascend(virtual, self.zeros(virtual), q, self.radius)  # radius * unit(q)

            perturbed = self.logits(virtual, r)  # p(e + r)
            divergence = self.task.towards(perturbed, clean, virtual)  # KL(p(e) || p(e + r))
            if virtual is batch:
                self.note("loss/adversarial", self.task.losses(perturbed, batch).mean())
            # A mean over the examples it is taken at, however many have labels.
            penalty = self.weight * divergence.mean().expand(len(losses))
            if held:
                return self.descend(batch, losses, penalty=penalty, clean=answers, delta=r)
            return self.descend(batch, penalty=penalty, delta=r)

    def virtual(self, batch: Batch, answers: Tensor) -> tuple[Batch, Tensor]:
        """The examples whose answers shall not change, and these answers."""
        if "unlabelled" not in batch:
            return batch, answers.detach()
        unlabelled: Batch = batch["unlabelled"]  # pyright: ignore[reportAssignmentType]
        with torch.no_grad(), standstill.statistics_kept(self.task):
            return unlabelled, self.logits(unlabelled)

    def probe(self, batch: Batch, q: Tensor) -> Tensor:
        """`xi * unit(q)`, on real tokens."""
        return ball.ascend(self.zeros(batch), q, self.task.mask(batch), self.xi)
