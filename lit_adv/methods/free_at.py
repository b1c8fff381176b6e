"""Free adversarial training: Shafahi et al., NeurIPS 2019, arXiv:1904.12843, on word embeddings."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.onset import Options
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.task import Batch, Task


class FreeAT(FineTuner):
    """`replays` times per batch: theta steps by `grad_theta L(e + delta)`, delta by `grad_delta`.

    Both gradients come from one backward pass, at the weights before the step, so delta is always
    one step behind. In the paper delta persists from batch to batch, which has no meaning for
    texts, where another word stands at the same place: here it starts anew unless `persist`. A
    replay is an optimizer step, but the batch counts as one step: schedules, `max_steps` and
    checkpoints keep their meaning. Training is free only with epochs divided by `replays`. The
    port in FreeLB's code (zhuchen03/FreeLB eb23701) divides the loss by 1 + replays although each
    replay steps, and draws new dropout masks for each.

    Passes per batch: replays forward, replays backward, replays optimizer steps.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
        replays: m, passes over each batch; 1 = one step at the start.
        step_size: alpha, length of one ascent.
        radius: epsilon; 0 = no perturbation, inf = unlimited.
        init_size: of the uniform start; 0 = start at zero.
        norm: `l2`, `linf` (the paper's, sign steps) or `soft-inf`.
        persist: delta goes on with the next batch, which must have the shape of the first (a
            smaller last one takes its part).
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range, or batches change their shape.
    """

    passes = "own steps"

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        replays: int = 3,
        step_size: float = 0.05,
        radius: float = 0.1,
        init_size: float = 0.0,
        norm: ball.Norm = "l2",
        persist: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.replays = whole(1, "method.replays", replays)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        self.norm: ball.Norm = one_of(ball.NORMS, "method.norm", norm)
        self.persist = persist
        self._delta: Tensor | None = None

    @property
    def cost(self) -> Cost:
        return Cost(self.replays, self.replays, self.replays)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        delta = self.start(batch)
        with self.one_batch():
            for replay in range(1, self.replays + 1):
                losses = self.losses(batch, delta.requires_grad_())  # L(e + delta)
                self.note("loss/adversarial", losses.mean())
                grad = self.accumulate(batch, losses, wrt=delta)  # of theta and of delta
                last = replay == self.replays
                before = delta
                if self.persist or not last:  # delta steps, while this is still the batch's step
                    delta = self.ascend(batch, delta, grad, self.step_size, self.radius, self.norm)
                self.descend(batch, delta=before, counted=last)  # theta steps
        return self.keep(delta)

    def start(self, batch: Batch) -> Tensor:
        """Where delta begins at this batch."""
        if self._delta is None:
            if not self.init_size:
                return self.zeros(batch)
            return self.sample(batch, self.init_size, self.radius, self.norm)
        free = self.task.mask(batch)
        rows, tokens = free.shape
        if self._delta.shape[1] != tokens or rows > len(self._delta):
            raise ValueError(
                f"method.persist=true: a batch of shape {rows} x {tokens} after one of "
                f"{len(self._delta)} x {self._delta.shape[1]}; a perturbation persists only over "
                "batches of one shape"
            )
        kept = torch.where(free.unsqueeze(-1), self._delta[:rows].to(free.device), 0)
        return self.task.within(batch, kept)

    def keep(self, delta: Tensor) -> None:
        """For the next batch, if delta persists."""
        if self.persist and (self._delta is None or len(delta) == len(self._delta)):
            self._delta = delta.detach()
        elif self.persist and self._delta is not None:
            self._delta[: len(delta)] = delta.detach()

    def process_state(self) -> dict[str, Any]:
        state = super().process_state()
        return state if self._delta is None else {**state, "delta": self._delta.cpu()}

    def load_process_state(self, state: dict[str, Any]) -> None:
        super().load_process_state(state)
        self._delta = state.get("delta")
