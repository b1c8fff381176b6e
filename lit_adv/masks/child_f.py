"""Child-Tuning, task-free: Xu et al., EMNLP 2021, arXiv:2109.05687."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lit_adv import processes
from lit_adv.masks.mask import Mask, check_share, chosen
from lit_adv.random_state import apart
from lit_adv.tasks.task import Batch, Task


class ChildF(Mask):
    """`g <- M * g / share`, `M ~ Bernoulli(share)` drawn anew for every weight and optimizer step.

    FreeAT's steps on one batch share one. The mask depends on seed, step and the order of the
    weights only: every process draws the same one. It is applied before clipping. Under Adam the
    factor 1 / share cancels out and the mean update shrinks by about the root of share, so compare
    with a run at that learning rate. Weight decay and Adam's momentum go on moving masked weights,
    as in the authors' code (AliceMind/ChildTuning). Cost: a random number of 16 bits per weight and
    step.

    Args:
        share: p, chance of a weight to move; 1 = no mask. The paper tries 0.2, 0.3 and 0.4.
        only: text that the names of masked weights contain; empty = all weights.

    Raises:
        ValueError: share does not lie in (0, 1].
    """

    def __init__(self, share: float = 0.3, only: str = "") -> None:
        self.share = check_share(share)
        self.only = only
        self.acts = share < 1
        # What a draw of 16 bits can have: 1e-5 from the share at most.
        self._chance = min(max(round(share * 2**16), 1), 2**16 - 1) / 2**16
        self._seed: int | None = None
        self._saved: int | None = None  # from a checkpoint
        self._stream: torch.Generator | None = None

    def begin(self, task: Task, batches: Callable[[], Iterable[Batch]]) -> None:
        seed = torch.initial_seed() if self._saved is None else self._saved
        self._seed = processes.gather(seed)[0]
        self._saved = None

    @torch.no_grad()
    def apply(self, task: Task, step: int) -> Tensor:
        grads = [w.grad for w in chosen(task, self.only).values() if w.grad is not None]
        if not grads:  # a part of the network that a batch did not use
            return torch.ones((), device=next(task.parameters()).device)
        if self._seed is None:
            self._seed = torch.initial_seed()
        if self._stream is None or self._stream.device != grads[0].device:
            self._stream = torch.Generator(grads[0].device)
        self._stream.manual_seed(apart(self._seed, step + 1))

        kept, total = torch.zeros((), dtype=torch.int64, device=grads[0].device), 0
        for grad in grads:
            keep = self._draw(grad)
            kept, total = kept + keep.sum(), total + keep.numel()
            # Not multiplied by the mask: an infinite gradient times zero would be NaN.
            grad.div_(self.share).masked_fill_(~keep, 0)
        return kept / total

    def _draw(self, grad: Tensor) -> Tensor:
        """True with the chance of moving, of the gradient's shape."""
        # Four draws of 16 bits in one: random numbers are what this mask costs.
        draws = torch.empty(-(-grad.numel() // 4), dtype=torch.int64, device=grad.device)
        draws.random_(-(2**63), None, generator=self._stream)
        lanes = draws.view(torch.int16)[: grad.numel()].view(grad.shape)
        return lanes < round(self._chance * 2**16) - 2**15

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed if self._saved is None else self._saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state.get("seed")
