"""Stopwatch: seconds spent in training batches, and peak memory."""

import resource
import sys
import time
from typing import Any

import lightning as L
import torch


class Stopwatch(L.Callback):
    """Time of the training batches alone: without validation, checkpoints and start-up.

    On an accelerator the host runs ahead of the device, so time is read only where a stretch of
    training batches begins and ends: at the ends of epochs and where a validation interrupts them.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def figures(self, steps: int) -> dict[str, Any]:
        """Seconds in all, seconds per optimizer step, and peak memory in MiB."""
        return {
            "seconds": self.seconds,
            "seconds_per_step": self.seconds / max(1, steps),
            "steps": steps,
            "peak_memory_mib": peak_memory_mib(),
        }

    def _stop(self) -> None:
        if self._since is not None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - self._since
        self._since = None


def peak_memory_mib() -> float:
    """Largest memory so far: of the GPU's allocator where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
