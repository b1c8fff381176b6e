"""Callbacks for runs that are interrupted."""

import os
import signal
from typing import Any

import lightning as L


class Interrupt(L.Callback):
    """Sends this process a signal after so many batches."""

    def __init__(self, name: str, batches: int) -> None:
        self.signal, self.left = signal.Signals[name], batches

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0 and trainer.is_global_zero:
            os.kill(os.getpid(), self.signal)
