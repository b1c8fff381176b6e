"""Perturbing: perturbations at the strength of the step, their noise, and whether there are any."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv import processes
from lit_adv.descent import Descent
from lit_adv.functional import ball
from lit_adv.functional.precision import at_least_float32
from lit_adv.loop import Loop
from lit_adv.onset import Onset, Timing
from lit_adv.tasks.task import Batch, Task


class Perturbing(Loop):
    """What methods need to perturb a batch, apart from passes over it.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        timing: see Onset.

    Raises:
        ValueError: at the end of the first epoch that attacks, if nothing was perturbed.
    """

    inert = (
        "the gradient at the perturbed module is zero or not finite, or no token may be perturbed; "
        "look at model.at and model.special_tokens"
    )
    """Why nothing may have been perturbed, and what to do."""

    def __init__(
        self, task: Task, descent: Descent | None = None, **timing: Unpack[Timing]
    ) -> None:
        super().__init__(task, descent)
        self.onset = Onset(**timing)
        self._noise: torch.Generator | None = None
        self._noise_state: Tensor | None = None
        self._alive = False  # it has perturbed something
        self._meant = False  # to perturb something
        self._moved: Tensor | None = None  # the largest perturbation so far

    @property
    def attacks(self) -> bool:
        """Whether this optimizer step attacks; else it is plain fine-tuning."""
        return self.onset.attacks(self.steps_taken)

    @property
    def strength(self) -> float:
        """Share of all sizes at this optimizer step, below 1 during the warm-up."""
        if not self.onset.warmup_steps:
            return 1.0
        return self.onset.strength(self.steps_taken)

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
        return self.task.within(batch, ball.project(start, _times(strength, radius), norm, per))

    def gaussian(self, batch: Batch, std: float) -> Tensor:
        """Normal noise of this standard deviation in every coordinate, whatever inputs may be."""
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
        """One projected step uphill, `Proj(delta + step_size * unit(grad))`; see `ball`.

        Where inputs have a valid range, into it as well.
        """
        self.expect(step_size, radius)
        mask, strength = self.task.mask(batch), self.strength
        radius = _times(strength, radius)
        moved = ball.ascend(delta, grad, mask, strength * step_size, radius, norm, per)
        return self.task.within(batch, moved)

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

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self._meant and not self._alive:
            none = torch.zeros((), device=self.device)
            moved = processes.largest(none if self._moved is None else self._moved.float())
            if not moved > 0:
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
        if self._noise is None or self._noise.device.type != self.device.type:
            self._noise = torch.Generator(self.device)
            self._noise.manual_seed(torch.initial_seed() % 2**62 + self.global_rank)
            # A checkpoint from another kind of device has a state of another size: begin anew then.
            saved = self._noise_state
            if saved is not None and saved.shape == self._noise.get_state().shape:
                self._noise.set_state(saved)
        return self._noise

    def process_state(self) -> dict[str, Any]:
        return {**super().process_state(), "noise": self.noise.get_state()}

    def load_process_state(self, state: dict[str, Any]) -> None:
        super().load_process_state(state)
        self._noise, self._noise_state = None, state["noise"]


def _times(strength: float, radius: float | None) -> float | None:
    return None if radius is None else strength * radius
