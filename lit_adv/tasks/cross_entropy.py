"""Cross-entropy of classes, which may weigh differently, with labels that may be smoothed."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_adv.functional.precision import at_least_float32
from lit_adv.ranges import share

IGNORED = -100
"""The label of what has none: of padding, of a prompt, of the later pieces of a word."""


class PerClass:
    """A number for every class, as a tensor beside others; in no checkpoint, and never rounded.

    Args:
        key: the setting that says them.
        values: from 0 up; None = 1 for each.
        count: of the classes.

    Raises:
        ValueError: there are more or fewer numbers than classes, or one is negative.
    """

    def __init__(self, key: str, values: Sequence[float] | None, count: int) -> None:
        self._values = None if values is None else [float(value) for value in values]
        self._tensor: Tensor | None = None
        if self._values is None:
            return
        if len(self._values) != count or not all(value >= 0 for value in self._values):
            raise ValueError(
                f"{key}={self._values}: needs {count} numbers from 0 up, one for each class"
            )

    def like(self, logits: Tensor) -> Tensor | None:
        """On the device and of the type of these, made once; None = each class counts the same."""
        kept = self._tensor
        if self._values is None:
            return None
        if kept is None or kept.device != logits.device or kept.dtype != logits.dtype:
            self._tensor = logits.new_tensor(self._values)
        return self._tensor

    @property
    def given(self) -> bool:
        """Whether classes may count differently."""
        return self._values is not None


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

    def __init__(
        self,
        num_labels: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = PerClass("task.class_weights", class_weights, num_labels)
        self.label_smoothing = share("task.label_smoothing", label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[batch, C], [batch] -> [batch]."""
        logits = at_least_float32(logits)
        return F.cross_entropy(
            logits,
            labels,
            weight=self.weights.like(logits),
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )


def balanced(labels: Sequence[int], num_labels: int) -> list[float]:
    """`n / (k n_c)`, of the k classes that come: each has the same weight in all.

    The mean over examples is 1. A class that never comes has no weight.

    >>> balanced([0, 0, 0, 1], 2)
    [0.6666666666666666, 2.0]
    """
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_labels).tolist()
    there = sum(1 for count in counts if count)
    return [len(labels) / (there * count) if count else 0.0 for count in counts]
