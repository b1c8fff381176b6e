"""Child-Tuning, task-free: Xu et al., EMNLP 2021, arXiv:2109.05687."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lit_adv.masks.mask import Mask, check_share, chosen
from lit_adv.tasks.task import Batch, Task


class ChildF(Mask):
    """`g <- M * g / share`, `M ~ Bernoulli(share)` drawn anew for every weight and optimizer step.

    The mask depends on seed, step and the order of the weights only: every process draws the same
    one. It is applied before clipping. Under Adam the factor 1 / share cancels out and the mean
    update shrinks by about the root of share, so compare with a run at that learning rate. Weight
    decay and Adam's momentum go on moving masked weights, as in the authors' code
    (AliceMind/ChildTuning). Cost: one random number per weight and step.

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
        self._seed: int | None = None
        self._saved: int | None = None  # from a checkpoint
        self._stream: torch.Generator | None = None

    def begin(self, task: Task, batches: Callable[[], Iterable[Batch]]) -> None:
        self._seed = torch.initial_seed() if self._saved is None else self._saved
        self._saved = None

    @torch.no_grad()
    def apply(self, task: Task, step: int) -> Tensor:
        grads = [w.grad for w in chosen(task, self.only).values() if w.grad is not None]
        if self._seed is None:
            self._seed = torch.initial_seed()
        if self._stream is None or self._stream.device != grads[0].device:
            self._stream = torch.Generator(grads[0].device)
        # A large odd factor keeps the streams of neighbouring seeds and steps apart.
        self._stream.manual_seed((self._seed + 0x9E3779B97F4A7C15 * (step + 1)) % 2**63)

        kept, total = grads[0].new_zeros((), dtype=torch.float32), 0
        for grad in grads:
            mask = torch.empty_like(grad).bernoulli_(self.share, generator=self._stream)
            kept, total = kept + mask.sum(dtype=torch.float32), total + mask.numel()
            # Not multiplied: an infinite gradient times zero would be NaN.
            grad.copy_(torch.where(mask.bool(), grad / self.share, 0))
        return kept / total

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed if self._saved is None else self._saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state.get("seed")
