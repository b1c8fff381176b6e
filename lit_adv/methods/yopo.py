"""YOPO-m-n, You Only Propagate Once: Zhang et al., NeurIPS 2019, arXiv:1905.00877."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from lit_adv import layers, standstill
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.random_state import RandomState
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class YOPO(FineTuner):
    """`max_delta <p, f0(e + delta)>`, `p = grad_{f0} l`: cheap ascents through the first layers.

    The network is f0 (up to the split module) and the rest. `rounds` (m) times: a full pass at
    delta gives p, the loss's gradient at f0's output; then `inner_steps` (n) ascents
    `delta <- Proj(delta + step_size * unit(J_f0(e + delta)^T p))` run f0 alone, the first of them
    free with the full pass. `form="gd"` trains on `(1/m) sum_j L(e + delta^(j,n))`: the full pass
    of round j + 1 is also the training pass of round j. `form="pmp"` trains the rest at
    `delta^(j,0)` and f0 by `<p, f0(e + delta^(j,n))>` with the old p.

    With an affine f0 the gradient does not depend on delta, and YOPO is PGD with steps n times as
    long: so it is in the authors' image networks (a1600012888/YOPO b8ae668), which split after one
    convolution; they also count the first layer's gradient twice, and sum over rounds where this
    averages. The default split is after the first transformer layer.

    Passes per batch, with phi the share of f0 in the network: gd: m + 1 full forward and input
    backward plus m(n - 1) phi, m to the weights; pmp: m full, plus m n phi, of which m to f0's
    weights.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        rounds: m, full propagations that look for a perturbation.
        inner_steps: n, ascents per round; 1 = PGD's path.
        step_size: alpha, length of one ascent, in units of the word embeddings.
        radius: epsilon, per example; 0 = no perturbation, inf = unlimited.
        init_size: of the uniform start; 0 = start at zero.
        norm: `l2`, `linf` (the paper's) or `soft-inf`.
        form: `gd` (gradient descent) or `pmp` (Pontryagin's maximum principle).
        split: dotted name of the last module of f0; None = the network's first layer.
        options: see FineTuner; without the same dropout masks f0 is another one than p's.

    Raises:
        ValueError: one of the arguments lies outside its range, or there is no such module.
    """

    cuts_network = True

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        rounds: int = 3,
        inner_steps: int = 2,
        step_size: float = 0.01,
        radius: float = 0.03,
        init_size: float = 0.0,
        norm: ball.Norm = "l2",
        form: Literal["gd", "pmp"] = "gd",
        split: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.rounds = whole(1, "method.rounds", rounds, "for fine-tuning use method=finetune")
        self.inner_steps = whole(1, "method.inner_steps", inner_steps)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)
        self.form = one_of(("gd", "pmp"), "method.form", form)
        self.split_name = split
        self._split = (layers.find_layer(task.network, split),)  # in a tuple: not registered again

    @property
    def cost(self) -> Cost:
        phi, m, n = (
            layers.share_of_layers(self.task.network, self.split),
            self.rounds,
            self.inner_steps,
        )
        if self.form == "gd":
            return Cost(m + 1 + m * (n - 1) * phi, m + 1 + m * (n - 1) * phi, m)
        return Cost(m * (1 + n * phi), m * (1 + n * phi), m)

    @property
    def split(self) -> nn.Module:
        """The last module of f0."""
        return self._split[0]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.zeros(batch)
        if self.init_size:
            delta = self.sample(batch, self.init_size, self.radius, self.norm)
        share = 1 / self.rounds
        with self.one_batch():
            if self.form == "pmp":
                for _ in range(self.rounds):
                    found = self.propagate_rest(batch, delta, share)  # p at delta^(j,0)
                    delta = self.search(batch, delta, found)
                    self.train_front(batch, delta, found.p)  # at delta^(j,n)
                return self.descend(batch, delta=delta)
            found = self.look(batch, delta)
            for _ in range(self.rounds - 1):
                delta = self.search(batch, delta, found)
                found = self.propagate(batch, delta, share)  # trains at delta^(j,n)
            delta = self.search(batch, delta, found)
            losses = self.losses(batch, delta)
            self.note("loss/adversarial", losses.mean())
            return self.descend(batch, losses, share=share, delta=delta)

    def look(self, batch: Batch, delta: Tensor) -> "Propagated":
        """A full pass that trains nothing."""
        with standstill.frozen(self.task), layers.captured(self.split) as outputs:
            losses = self.losses(batch, delta.requires_grad_())
            answer = _tensor(layers.first_of(outputs, self.split_name))
            answer = self.dependent(answer if answer.requires_grad else None)
            p, grad = torch.autograd.grad(losses.sum(), [answer, delta])
        return Propagated(p, grad)

    def propagate(self, batch: Batch, delta: Tensor, share: float) -> "Propagated":
        """A full pass that trains."""
        with layers.captured(self.split) as outputs:
            losses = self.losses(batch, delta.requires_grad_())
        self.note("loss/adversarial", losses.mean())
        answer = _tensor(layers.first_of(outputs, self.split_name))
        self.show(batch, losses, share)
        answer.retain_grad()  # now: what observers ask for would be added to it
        self.window.accumulate(losses, share, None, batch)
        assert answer.grad is not None
        return Propagated(answer.grad, self.gradient(batch, losses, delta), losses.detach())

    def propagate_rest(self, batch: Batch, delta: Tensor, share: float) -> "Propagated":
        """A full pass that trains what lies behind f0."""
        with layers.cut(self.split) as answers:
            losses = self.losses(batch, delta.requires_grad_())
        self.note("loss/adversarial", losses.mean())
        answer, leaf = layers.first_of(answers, self.split_name)
        self.accumulate(batch, losses, share)
        assert leaf.grad is not None, "the losses do not depend on the split module"
        (grad,) = torch.autograd.grad(answer, delta, leaf.grad, allow_unused=True)
        grad = self.unflooded(batch, losses, self.dependent(grad))
        return Propagated(leaf.grad, grad, losses.detach())

    def search(self, batch: Batch, delta: Tensor, found: "Propagated") -> Tensor:
        """`inner_steps` ascents of `<p, f0(e + delta)>`; the first gradient came with p."""
        grad = found.grad
        for step in range(self.inner_steps):
            if step:
                with standstill.frozen(self.task):
                    answer = self.f0(batch, delta.requires_grad_())
                    (grad,) = torch.autograd.grad(_product(found.p, answer), delta)
                if found.losses is not None:
                    grad = self.unflooded(batch, found.losses, grad)
            delta = self.ascend(batch, delta, grad, self.step_size, self.radius, self.norm)
        return delta

    def train_front(self, batch: Batch, delta: Tensor, p: Tensor) -> None:
        """Add the gradient of `<p, f0(e + delta)>` to the weights of f0."""
        with standstill.statistics_kept(self.task):
            answer = self.f0(batch, delta)
            if answer.requires_grad:  # some of its weights train
                _product(p, answer).backward()  # p knows shares and loss scale

    def f0(self, batch: Batch, delta: Tensor) -> Tensor:
        """What the first layers answer; the others do not run."""
        after = RandomState(self.device)
        answer = layers.up_to(self.task.network, self.split, lambda: self.logits(batch, delta))
        after.rewind()  # or the next batch would draw masks that the other layers have had
        return _tensor(answer)

    def dependent(self, found: Tensor | None) -> Tensor:
        """This tensor, if it depends on the perturbation.

        Raises:
            ValueError: the split module answers without it.
        """
        if found is None:
            raise ValueError(
                f"method.split={self.split_name}: its answer does not depend on the perturbed "
                "embeddings; name a module behind them"
            )
        return found


class Propagated(NamedTuple):
    """What a full pass brings: p, as its losses were flooded; delta's gradient, as they were not.

    What turns p back is known of examples, and where f0's answer has them is its own affair.
    """

    p: Tensor
    grad: Tensor
    losses: Tensor | None = None  # None = they were not flooded


def _tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _product(p: Tensor, answer: Tensor) -> Tensor:
    return (p.detach().to(torch.promote_types(p.dtype, torch.float32)) * answer).sum()
