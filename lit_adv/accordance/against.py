"""Against: do steps on training batches still lower the loss of data held out?"""

import math
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from lit_adv import processes
from lit_adv.accordance.probe import Probe
from lit_adv.functional.accordance import Normalize
from lit_adv.functional.precision import at_least_float32
from lit_adv.functional.vectors import dot
from lit_adv.nested import size


class Against:
    """Accordance of training batches with the mean gradient of held-out ones.

    `mean_s cos(g_s, G)`, where G is the gradient of the mean loss over all held-out batches:
    whether a step on a training batch still lowers the held-out loss.

    Args:
        probe: takes gradients.
        held_out: batches of this process.
        normalize: `cosine`, or `none` for inner products.
    """

    def __init__(self, probe: Probe, held_out: list[Any], normalize: Normalize) -> None:
        self._probe, self._normalize = probe, normalize
        self._found: list[float] = []
        examples, self._direction = 0.0, list[Tensor]()
        for batch in held_out:
            gradient = probe.whole(batch)
            count = probe.examples(size(batch))
            if not self._direction:
                self._direction = [torch.zeros_like(at_least_float32(part)) for part in gradient]
            for part, more in zip(self._direction, gradient, strict=True):
                part.add_(more, alpha=count)
            examples += count
        if not probe.joint:
            examples = sum(processes.gather(examples))
            for part in self._direction:
                processes.add_up(part)
        for part in self._direction:
            part.div_(examples)
        self._length = math.sqrt(self._dot(self._direction, self._direction))

    def update(self, gradient: list[Tensor]) -> None:
        """Add the gradient of one training batch."""
        inner = self._dot(gradient, self._direction)
        if self._normalize == "cosine":
            inner /= self._length * math.sqrt(self._dot(gradient, gradient)) or math.nan
        if math.isfinite(inner):
            self._found.append(inner)

    def compute(self) -> tuple[float, float]:
        """Mean over the training batches of all processes, and its standard error.

        The error is that of the training batches; that of the held-out direction is not in it.
        """
        found = self._found
        if not self._probe.joint:
            found = [value for part in processes.gather(found) for value in part]
        if not found:
            return math.nan, math.nan
        error = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
        return mean(found), error

    def _dot(self, a: list[Tensor], b: list[Tensor]) -> float:
        return float(self._probe.total(dot(a, b)))
