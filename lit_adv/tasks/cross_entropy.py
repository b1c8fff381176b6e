"""Cross-entropy of classes, which may weigh differently, with labels that may be smoothed."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_adv.functional.precision import at_least_float32

IGNORED = -100
"""The label of what has none: of padding, of a prompt, of the later pieces of a word."""
ClassWeights: TypeAlias = Literal["balanced"] | Sequence[float] | None


class CrossEntropy(nn.Module):
    """`(1 - s) w_y (-log p_y) + s / C sum_c w_c (-log p_c)` of every answer; 0 where ignored.

    A mean over examples stays a mean over examples: torch's own, by the weights of a batch's
    labels, would make an example's weight depend on the others.

    Args:
        num_labels: C, number of classes.
        class_weights: w, [C]; None = 1.
        label_smoothing: s, share of the target that all classes have alike, in [0, 1).

    Raises:
        ValueError: there are more or fewer weights than classes, or one is negative, or the share
            lies outside its range.
    """

    weights: Tensor | None

    def __init__(
        self,
        num_labels: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"task.label_smoothing={label_smoothing}: needs to lie in [0, 1)")
        weights = None
        if class_weights is not None:
            weights = torch.tensor(list(class_weights), dtype=torch.float32)
            if len(weights) != num_labels or not bool((weights >= 0).all()):
                raise ValueError(
                    f"task.class_weights={list(class_weights)}: needs {num_labels} numbers from 0 "
                    "up, one for each class"
                )
        self.register_buffer("weights", weights, persistent=False)  # checkpoints stay as they are
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[batch, C], [batch] -> [batch]."""
        logits = at_least_float32(logits)
        return F.cross_entropy(
            logits,
            labels,
            weight=None if self.weights is None else self.weights.to(logits.dtype),
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )

    @property
    def weighted(self) -> bool:
        """Whether classes weigh differently."""
        return self.weights is not None


def balanced(labels: Sequence[int], num_labels: int) -> list[float]:
    """`n / (C n_c)`: each class has the same weight in all, and the mean over examples is 1.

    A class that never comes has no weight.

    >>> balanced([0, 0, 0, 1], 2)
    [0.6666666666666666, 2.0]
    """
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_labels).tolist()
    there = sum(1 for count in counts if count)
    return [len(labels) / (there * count) if count else 0.0 for count in counts]
