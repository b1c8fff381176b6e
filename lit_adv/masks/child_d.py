"""Child-Tuning, task-driven: Xu et al., EMNLP 2021, arXiv:2109.05687."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_adv.fisher import diagonal
from lit_adv.masks.mask import Mask, check_share, chosen
from lit_adv.ranges import whole
from lit_adv.tasks.task import Batch, Task


class ChildD(Mask):
    """`g <- M * g`: M keeps the `share` of weights with the largest Fisher information.

    `F_i = (1/n) sum_j (d l_j / d theta_i)^2` over training examples j, at the weights before the
    first step, in evaluation mode. Exactly `round(share * weights)` are kept; ties go to the
    first. The authors' code (AliceMind/ChildTuning) squares gradients of batch means, clips them
    before, and leaves dropout on: other scores. Like it, this scores and masks the layers
    only, by their names (`layernorm_embedding` is among them), so the tables of embeddings and the
    head always train. The mask is saved with the checkpoint.
    Weight decay still shrinks masked weights, as in their code; set `optimizer.weight_decay=0` for
    weights that stand still.

    Cost: one forward and backward pass over the training examples, one by one, before the first
    step; one byte per weight.

    Args:
        share: p, share of the weights that move; 1 = no mask.
        only: text that the names of masked weights contain; empty = all weights.
        examples: score by so many training examples at most; None = all.

    Raises:
        ValueError: share does not lie in (0, 1], or examples is below 1.
    """

    def __init__(
        self, share: float = 0.3, only: str = "layer", examples: int | None = None
    ) -> None:
        self.share = check_share(share)
        self.only = only
        self.examples = None if examples is None else whole(1, "mask.examples", examples)
        self.acts = share < 1
        self._masks: dict[str, Tensor] = {}
        self._saved: dict[str, Tensor] | None = None  # from a checkpoint
        self._kept = torch.tensor(1.0)

    def begin(self, task: Task, batches: Callable[[], Iterable[Batch]]) -> None:
        if not self.acts:
            return
        weights = chosen(task, self.only)
        if self._saved is not None and self._saved.keys() == weights.keys():
            self._masks = self._saved
        else:
            scores = diagonal(task, weights, batches(), self.examples)
            flat = torch.cat([scores[name].flatten() for name in weights])
            kept = largest(flat, round(self.share * len(flat)))
            parts = kept.split([weight.numel() for weight in weights.values()])
            self._masks = {
                name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)
            }
        self._saved = None
        device = next(iter(weights.values())).device
        self._masks = {name: mask.to(device) for name, mask in self._masks.items()}
        total = sum(mask.numel() for mask in self._masks.values())
        self._kept = torch.stack([mask.sum() for mask in self._masks.values()]).sum() / total

    @torch.no_grad()
    def apply(self, task: Task, step: int) -> Tensor:
        live = dict(task.named_parameters())
        for name, mask in self._masks.items():
            grad = live[name].grad
            if grad is not None:
                grad.masked_fill_(~mask, 0)
        return self._kept

    def state_dict(self) -> dict[str, Any]:
        masks = self._masks if self._saved is None else self._saved
        return {"masks": {name: (list(m.shape), _packed(m)) for name, m in masks.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        packed = state.get("masks", {}).items()
        self._saved = {name: _unpacked(shape, bits) for name, (shape, bits) in packed} or None


def largest(scores: Tensor, count: int) -> Tensor:
    """True at the `count` largest scores, [weights]; of equal ones the first are taken.

    >>> largest(torch.tensor([1.0, 3.0, 2.0, 2.0]), 2)
    tensor([False,  True,  True, False])
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(len(scores) - count + 1).values
    above = scores > threshold
    ties = (scores == threshold).nonzero().flatten()[: count - int(above.sum())]
    above[ties] = True
    return above


def _packed(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def _unpacked(shape: list[int], bits: Tensor) -> Tensor:
    count = int(np.prod(shape))
    flat = np.unpackbits(bits.cpu().numpy(), count=count).astype(bool)
    return torch.from_numpy(flat).view(shape)
