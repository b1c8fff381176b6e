"""The accordance of the batches of all processes."""

from typing import Any

import torch

from lit_adv import processes
from lit_adv.functional.accordance import Accordance
from lit_adv.functional.history import History
from lit_adv.nested import on_device, on_host


def over_processes(accordance: Accordance, device: torch.device) -> Accordance:
    """Add up what the processes have found, in place: one reduction of the vectors.

    All end with the same to the last bit, for they add in one order.

    Args:
        accordance: of this process's batches.
        device: where its vectors are, or would be.
    """
    if processes.count() == 1:
        return accordance
    shapes: dict[Any, list[tuple[tuple[int, ...], torch.dtype]]] = {}
    mine = {
        label: [(tuple(part.shape), part.dtype) for part in parts]
        for label, parts in accordance.sums.items()
    }
    for each in processes.gather(mine):
        shapes.update(each)
    counts = processes.gather(on_host(accordance.counts()))
    sums, accordance.sums = accordance.sums, {}
    for label in sorted(shapes):
        zeros = (torch.zeros(shape, dtype=of, device=device) for shape, of in shapes[label])
        accordance.sums[label] = sums[label] if label in sums else list(zeros)
        for part in accordance.sums[label]:
            processes.add_up(part)
    accordance.inner.clear()
    accordance.together.clear()
    accordance.batches, accordance.history = 0, History()
    for each in counts:
        accordance.add_counts(on_device(each, device))
    return accordance
