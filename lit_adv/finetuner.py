"""FineTuner: plain fine-tuning by manual optimisation, and the seams that all methods share."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv import inject, standstill
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.functional import ball
from lit_adv.functional.precision import at_least_float32
from lit_adv.loop import Loop
from lit_adv.onset import Onset, Options
from lit_adv.random_state import RandomState
from lit_adv.tasks.task import Batch, Task


class FineTuner(Loop):
    """`theta <- theta - lr * grad mean_b l(f(x_b; theta), y_b)`: Lightning's loop, by hand.

    Every method is this module with another `training_step`: it looks for perturbations, adds
    training passes with `accumulate`, and ends with `descend`. At steps without an attack it is
    plain fine-tuning.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        options: `start_step`, optimizer steps of plain fine-tuning before the first attack (0);
            `every_n_steps`, attack at every n-th step (1); `warmup_steps`, over so many steps all
            sizes rise linearly to their own (0); `same_dropout`, all passes over a batch draw the
            same dropout masks (true).
    """

    relative = False
    """Whether perturbations are in units of each word vector's standard deviation."""

    inert = (
        "the gradient at the perturbed module is zero or not finite, or no token may be perturbed; "
        "look at model.at and model.special_tokens"
    )
    """Why nothing may have been perturbed, and what to do."""

    def __init__(
        self, task: Task, descent: Descent | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(task, descent)
        self.same_dropout = options.get("same_dropout", True)
        self.onset = Onset(
            options.get("start_step", 0),
            options.get("every_n_steps", 1),
            options.get("warmup_steps", 0),
        )
        self._random_state: RandomState | None = None
        self._noise: torch.Generator | None = None
        self._noise_state: Tensor | None = None
        self._alive = False  # it has perturbed something
        self._meant = False  # to perturb something
        self._moved: Tensor | None = None  # the largest perturbation so far

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
        with (
            self.descent.update.forward(),
            inject.perturbed(self.task.embeddings, delta, self.relative),
        ):
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

    # ---- the perturbation ------------------------------------------------------------------------

    @property
    def attacks(self) -> bool:
        """Whether this optimizer step attacks; else it is plain fine-tuning."""
        return self.onset.attacks(self.trainer.global_step)

    @property
    def strength(self) -> float:
        """Share of all sizes at this optimizer step, below 1 during the warm-up."""
        if not self.onset.warmup_steps:
            return 1.0
        return self.onset.strength(self.trainer.global_step)

    def zeros(self, batch: Batch) -> Tensor:
        """The perturbation that perturbs nothing, [batch, tokens, width]."""
        mask = self.task.mask(batch)
        return at_least_float32(torch.zeros(*mask.shape, self.task.width, device=mask.device))

    def sample(
        self,
        batch: Batch,
        size: float,
        radius: float | None = None,
        norm: ball.Norm = "l2",
        per: ball.Per = "example",
    ) -> Tensor:
        """Uniform noise inside the ball of this size, projected to the radius; see `ball`."""
        mask, strength = self.task.mask(batch), self.strength
        self.expect(size, radius)
        start = ball.sample(mask, self.task.width, strength * size, norm, per, self.noise)
        return ball.project(start, _times(strength, radius), norm, per)

    def gaussian(self, batch: Batch, std: float) -> Tensor:
        """Normal noise of this standard deviation in every coordinate."""
        mask, std = self.task.mask(batch), self.strength * std
        return ball.gaussian(mask, self.task.width, std, self.noise)

    def ascend(
        self,
        batch: Batch,
        delta: Tensor,
        grad: Tensor,
        step_size: float,
        radius: float | None = None,
        norm: ball.Norm = "l2",
        per: ball.Per = "example",
    ) -> Tensor:
        """One projected step uphill, `Proj(delta + step_size * unit(grad))`; see `ball`."""
        self.expect(step_size, radius)
        mask, strength = self.task.mask(batch), self.strength
        radius = _times(strength, radius)
        return ball.ascend(delta, grad, mask, strength * step_size, radius, norm, per)

    def expect(self, size: float, radius: float | None = None) -> None:
        """Note that sizes were asked for that must perturb something, or training stops."""
        self._meant |= size > 0 and radius != 0

    def report(self, size: Tensor, name: str = "perturbation/norm") -> None:
        """Log the size of what is perturbed, and remember whether there was any.

        Args:
            size: of every example (or token), in whatever unit: 0 = nothing was perturbed.
            name: for the log.
        """
        size = size.detach()
        self.note(name, size.mean())
        if self._alive:
            return
        largest = size.max()
        self._moved = largest if self._moved is None else torch.maximum(self._moved, largest)

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
        self.window.accumulate(losses, share, penalty, batch)
        return None if wrt is None else self.gradient(batch, losses, wrt)

    def gradient(self, batch: Batch, losses: Tensor, wrt: Tensor) -> Tensor:
        """What a training pass has left in this tensor's `.grad`, without the flood's slope."""
        assert wrt.grad is not None, "the losses do not depend on the perturbation"
        grad, wrt.grad = wrt.grad, None
        flood = self.window.flood
        if flood.of == "example":
            # Below the level the weights climb; the adversary goes on climbing too.
            grad = flood.slope(losses.detach(), batch).view(-1, *[1] * (grad.ndim - 1)) * grad
        return grad

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

        self.window.conclude(losses, share, penalty, batch)
        self.finish(counted=counted)

    # ---- what lasts ------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self._meant and not self._alive:
            if self._moved is None or not self._moved > 0:
                raise ValueError(
                    f"method={type(self).__name__}: nothing was perturbed in the first epoch that "
                    f"attacks, although sizes above 0 were asked for: {self.inert}"
                )
            self._alive = True

    @property
    def streams(self) -> list[torch.Generator]:
        return [self.noise]

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


def _times(strength: float, radius: float | None) -> float | None:
    return None if radius is None else strength * radius
