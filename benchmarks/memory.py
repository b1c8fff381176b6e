"""How far memory rises: live bytes of PyTorch's allocator, at their peak.

On CUDA the allocator counts them itself. On a processor the profiler records every allocation and
release of PyTorch's allocator, kernels' scratch included; their running sum is the same number. (A
process's resident size is not: what is freed stays with it, and a peak says nothing of the method
at hand. Tensors seen by a dispatch mode leave out what kernels allocate within.)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.subject import Subject
from lit_adv.descent import Descent
from lit_adv.methods.finetune import FineTune

MIB = 2**20


class Rise:
    """Bytes at the peak inside a block, over those at its start.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._device = device
        self._before = 0
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> "Rise":
        if self._device.type == "cuda":
            self._before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            earlier = torch.empty(1)
            with _hushed():
                self._profile.__enter__()
                del earlier  # or the first release of something older would be told aloud
        return self

    def __exit__(self, *error: Any) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before
            return
        with _hushed():
            self._profile.__exit__(None, None, None)
        results: Any = self._profile.profiler
        events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())]
        self.bytes = max(accumulate(changes), default=0)


class StepPeak(L.Callback):
    """The peak of one training step: weights, optimizer's state and what the step adds to them.

    Args:
        at: number of the batch; not the first, which creates the optimizer's state.
        device: whose memory.
    """

    def __init__(self, at: int, device: torch.device) -> None:
        self.mib = 0.0
        self._at = at
        self._rise = Rise(device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self._at:
            self._rise.__enter__()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if batch_idx != self._at:
            return
        self._rise.__exit__()
        states = [s for o in trainer.optimizers for s in o.state.values()]
        moments = [value for state in states for value in state.values()]
        held = [*pl_module.parameters(), *pl_module.buffers(), *moments]
        self.mib = (_size(held) + self._rise.bytes) / MIB


def ascent_share(subject: Subject) -> dict[str, float]:
    """Peak activations of `FineTuner.ascent` over those of a training pass, and both in MiB."""
    module = FineTune(subject.task, Descent())
    delta = module.zeros(subject.batch)

    def train() -> None:
        with subject.autocast():
            subject.losses().mean().backward()

    train()  # gradients are there then, and no part of the rise
    with Rise(subject.device) as training:
        train()
    with Rise(subject.device) as ascent, subject.autocast():
        module.ascent(subject.batch, delta)
    subject.task.zero_grad()
    return {
        "ratio": ascent.bytes / training.bytes,
        "ascent": ascent.bytes / MIB,
        "training": training.bytes / MIB,
    }


def _size(values: list[Any]) -> int:
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))


@contextmanager
def _hushed() -> Iterator[None]:
    """The profiler's library writes to standard error, whatever its log level is."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
