"""FineTuner: plain fine-tuning by manual optimisation, and the seams that all methods share."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv import standstill
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.perturbing import Perturbing
from lit_adv.random_state import RandomState
from lit_adv.recipe import LATER, Method, check_options
from lit_adv.tasks.task import Batch, Task

if TYPE_CHECKING:
    from lit_adv.adoption.alone import Alone
    from lit_adv.adoption.alone import Options as LoopOptions


class FineTuner(Perturbing, metaclass=Method):
    """`theta <- theta - lr * grad mean_b l(f(x_b; theta), y_b)`: Lightning's loop, by hand.

    Every method is this module with another `training_step`: it looks for perturbations, adds
    training passes with `accumulate`, and ends with `descend`. At steps without an attack it is
    plain fine-tuning.

    Args:
        task: the network and its losses. Without one, a class of this kind gives a Recipe: the
            method and its settings, for a training of somebody else's.
        descent: how the weights descend.
        options: `start_step`, optimizer steps of plain fine-tuning before the first attack (0);
            `every_n_steps`, attack at every n-th step (1); `warmup_steps`, over so many steps all
            sizes rise linearly to their own (0); `same_dropout`, all passes over a batch draw the
            same dropout masks (true).
    """

    if TYPE_CHECKING:  # without a task it is a Recipe, which has this

        def on(self, network: Any, **options: Unpack["LoopOptions"]) -> "Alone": ...

    relative = False
    """Whether perturbations are in units of each word vector's standard deviation."""

    def __init__(
        self, task: Task = LATER, descent: Descent | None = None, **options: Unpack[Options]
    ) -> None:
        check_options(type(self), options, Options.__optional_keys__)
        super().__init__(
            task,
            descent,
            start_step=options.get("start_step", 0),
            every_n_steps=options.get("every_n_steps", 1),
            warmup_steps=options.get("warmup_steps", 0),
        )
        self.same_dropout = options.get("same_dropout", True)
        self._random_state: RandomState | None = None
        self.observers: list[Callable[[Batch, Tensor, float], None]] = []
        """Shown the losses of every training pass, with their graph, before they are descended."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.logits(batch)
        losses = self.task.losses(logits, batch)
        self.note("loss/clean", losses.mean())
        self.descend(batch, losses, clean=logits)

    @property
    def cost(self) -> Cost:
        """Passes per batch at a step that attacks."""
        return Cost(1, 1, 1)

    # ---- passes over a batch ---------------------------------------------------------------------

    def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """`f(e + delta)`: the network's answer with the perturbation added to its embeddings."""
        if self._random_state is not None:
            self._random_state.rewind()
        with self.descent.update.forward():
            return self.task.answer(batch, delta, self.relative)

    def losses(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """Loss of every example at the perturbed embeddings, [batch]."""
        return self.task.losses(self.logits(batch, delta), batch)

    def ascent(
        self, batch: Batch, delta: Tensor, objective: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Gradient with respect to delta of the SUM over examples, the weights standing still.

        Args:
            batch: the batch at hand.
            delta: perturbation, [batch, tokens, width].
            objective: from logits to [batch]; None = the task's losses.
        """
        with standstill.frozen(self.task):
            logits = self.logits(batch, delta.requires_grad_())
            values = self.task.losses(logits, batch) if objective is None else objective(logits)
            return torch.autograd.grad(values.sum(), delta)[0]

    @contextmanager
    def one_batch(self):
        """All passes inside draw the same dropout masks (unless `same_dropout` is off)."""
        before = self._random_state
        self._random_state = RandomState(self.device) if self.same_dropout else None
        try:
            yield
        finally:
            self._random_state = before

    # ---- training passes -------------------------------------------------------------------------

    @overload
    def accumulate(
        self,
        batch: Batch,
        losses: Tensor,
        share: float = 1.0,
        *,
        penalty: Tensor | None = None,
    ) -> None: ...

    @overload
    def accumulate(
        self,
        batch: Batch,
        losses: Tensor,
        share: float = 1.0,
        *,
        penalty: Tensor | None = None,
        wrt: Tensor,
    ) -> Tensor: ...

    def accumulate(
        self,
        batch: Batch,
        losses: Tensor,
        share: float = 1.0,
        *,
        penalty: Tensor | None = None,
        wrt: Tensor | None = None,
    ) -> Tensor | None:
        """Add the gradient of `share * losses` to the weights'; return delta's, which comes free.

        Delta's gradient is that of the unflooded losses, up to a positive factor.

        Args:
            batch: the batch at hand.
            losses: of one pass over it, [batch]; more passes follow.
            share: weight of this pass in the step's objective.
            penalty: what is descended beside them and never flooded, [batch].
            wrt: the perturbation whose gradient is wanted; None = nobody's.
        """
        self.show(batch, losses, share)
        self.window.accumulate(losses, share, penalty, batch)
        return None if wrt is None else self.gradient(batch, losses, wrt)

    def gradient(self, batch: Batch, losses: Tensor, wrt: Tensor) -> Tensor:
        """What a training pass has left in this tensor's `.grad`, without the flood's slope."""
        assert wrt.grad is not None, "the losses do not depend on the perturbation"
        grad, wrt.grad = wrt.grad, None
        return self.unflooded(batch, losses, grad)

    def unflooded(self, batch: Batch, losses: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the losses from that of a training pass, [batch, ...]."""
        flood = self.window.flood
        if flood.of != "example":
            return grad
        # Below the level the weights climb; the adversary goes on climbing too.
        return flood.slope(losses.detach(), batch).view(-1, *[1] * (grad.ndim - 1)) * grad

    def descend(
        self,
        batch: Batch,
        losses: Tensor | None = None,
        *,
        share: float = 1.0,
        penalty: Tensor | None = None,
        clean: Tensor | None = None,
        delta: Tensor | None = None,
        counted: bool = True,
    ) -> None:
        """The last training pass over a batch; at the end of the effective batch, the step.

        Args:
            batch: the batch at hand.
            losses: task losses of the pass, [batch]; None = all passes have been accumulated.
            share: weight of this pass in the step's objective.
            penalty: what is descended beside them and never flooded, [batch].
            clean: logits at the clean inputs, with their graph, if the method has them.
            delta: the perturbation of this pass, for the log.
            counted: whether the step is the one that the batch counts as.
        """
        proximal = self.descent.proximal
        if proximal.weight:
            logits = self.logits(batch) if clean is None else clean
            divergence = proximal.divergence(self.task, batch, logits)
            self.note("proximal/divergence", divergence.mean())
            held = proximal.weight * divergence
            penalty = held if penalty is None else penalty + held
        if delta is not None:
            self.report(ball.lengths(delta))

        if losses is not None:
            self.show(batch, losses, share)
        self.window.conclude(losses, share, penalty, batch, self.completes)
        self.finish(counted=counted)

    def show(self, batch: Batch, losses: Tensor, share: float) -> None:
        """Show the observers a training pass; not that of a second look."""
        if not self.again:
            for observe in self.observers:
                observe(batch, losses, share)
