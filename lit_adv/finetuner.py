"""FineTuner: plain fine-tuning by manual optimisation, and the seams that all methods share."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import Tensor

from lit_adv import inject
from lit_adv.descent import Descent
from lit_adv.functional import ball
from lit_adv.functional.precision import at_least_float32
from lit_adv.loop import Loop
from lit_adv.tasks.task import Batch, Task


class FineTuner(Loop):
    """`theta <- theta - lr * grad mean_b l(f(x_b; theta), y_b)`: Lightning's loop, by hand.

    Every method is this module with another `training_step`: it looks for perturbations, adds
    training passes with `accumulate`, and ends with `descend`, which floods, clips, steps,
    schedules and lets the proximal reference follow, in that order. Cost of plain fine-tuning: one
    forward pass, one backward.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        same_dropout: all passes over a batch draw the same dropout masks.
    """

    def __init__(
        self, task: Task, descent: Descent | None = None, *, same_dropout: bool = True
    ) -> None:
        super().__init__(task, descent)
        self.same_dropout = same_dropout
        self._noise: torch.Generator | None = None
        self._noise_state: Tensor | None = None
        self._random_state: inject.RandomState | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.logits(batch)
        self.descend(batch, self.task.losses(logits, batch), clean=logits)

    def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """`f(e + delta)`: the network's answer with the perturbation added to its embeddings."""
        if self._random_state is not None:
            self._random_state.rewind()
        with inject.perturbed(self.task.embeddings, delta):
            return self.task(batch)

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
        with inject.frozen(self.task):
            logits = self.logits(batch, delta.requires_grad_())
        values = self.task.losses(logits, batch) if objective is None else objective(logits)
        return torch.autograd.grad(values.sum(), delta)[0]

    def zeros(self, batch: Batch) -> Tensor:
        """The perturbation that perturbs nothing, [batch, tokens, width]."""
        mask = self.task.mask(batch)
        return at_least_float32(torch.zeros(*mask.shape, self.task.width, device=mask.device))

    def sample(
        self, batch: Batch, size: float, norm: ball.Norm = "l2", per: ball.Per = "example"
    ) -> Tensor:
        """Uniform noise inside the ball of this size, from a stream of its own."""
        return ball.sample(self.task.mask(batch), self.task.width, size, norm, per, self.noise)

    @contextmanager
    def passes(self):
        """All passes inside draw the same dropout masks (unless `same_dropout` is off)."""
        self._random_state = inject.RandomState(self.device) if self.same_dropout else None
        try:
            yield
        finally:
            self._random_state = None

    @overload
    def accumulate(self, losses: Tensor, share: float = 1.0) -> None: ...

    @overload
    def accumulate(self, losses: Tensor, share: float = 1.0, *, wrt: Tensor) -> Tensor: ...

    def accumulate(
        self, losses: Tensor, share: float = 1.0, *, wrt: Tensor | None = None
    ) -> Tensor | None:
        """Add the gradient of `share * losses` to the weights'; return delta's, which comes free.

        Delta's gradient is that of the unflooded losses, up to a positive factor.

        Args:
            losses: of one pass over the batch at hand, [batch]; more passes follow.
            share: weight of this pass in the step's objective.
            wrt: the perturbation whose gradient is wanted; None = nobody's.
        """
        self.window.accumulate(losses, share)
        if wrt is None:
            return None
        assert wrt.grad is not None, "the losses do not depend on the perturbation"
        # Overflow of the loss scale: the optimizer will skip this step; the adversary stays put.
        grad, wrt.grad = wrt.grad.nan_to_num(0, 0, 0), None
        if self.descent.flood.of == "example":
            # Below the level the weights climb; the adversary goes on climbing too.
            grad = self.descent.flood.slope(losses.detach()).view(-1, 1, 1) * grad
        return grad

    def descend(
        self,
        batch: Batch,
        losses: Tensor,
        *,
        share: float = 1.0,
        penalty: Tensor | None = None,
        clean: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> None:
        """The last training pass over a batch; at the end of the effective batch, the step.

        Args:
            batch: the batch at hand.
            losses: task losses of the pass, [batch].
            share: weight of this pass in the step's objective.
            penalty: what is descended beside them and never flooded, [batch].
            clean: logits at the clean inputs, with their graph, if the method has them.
            delta: the perturbation of this pass, for the log.
        """
        proximal = self.descent.proximal
        if proximal.weight:
            logits = self.logits(batch) if clean is None else clean
            divergence = proximal.divergence(self.task, batch, logits)
            self.log("proximal/divergence", divergence.detach().mean())
            held = proximal.weight * divergence
            penalty = held if penalty is None else penalty + held
        if delta is not None:
            self.log("perturbation/norm", ball.lengths(delta.detach()).mean())

        self.window.conclude(losses, share, penalty)
        self.finish()

    @property
    def noise(self) -> torch.Generator:
        """The stream that perturbation noise is drawn from: not dropout's, one per process."""
        if self._noise is None:
            self._noise = torch.Generator(self.device)
            self._noise.manual_seed(torch.initial_seed() % 2**62 + self.global_rank)
            # A checkpoint from another kind of device has a state of another size: begin anew then.
            saved = self._noise_state
            if saved is not None and saved.shape == self._noise.get_state().shape:
                self._noise.set_state(saved)
        return self._noise

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lit_adv"]["noise"] = self.noise.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._noise, self._noise_state = None, checkpoint["lit_adv"]["noise"]
