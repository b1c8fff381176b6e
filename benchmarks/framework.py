"""What Lightning and lit_adv take beside plain fine-tuning: whole epochs against a bare loop."""

from statistics import median

import lightning as L
from torch import nn

from benchmarks import subject
from benchmarks.subject import Subject
from lit_adv.descent import Descent, Schedule, adamw, decay_groups
from lit_adv.methods.finetune import FineTune


class Epochs(L.Callback):
    """Epochs of the Trainer and of a bare loop over the same network and batches, by turns.

    An epoch of the Trainer lasts from the end of a bare one to the start of the next: what
    Lightning does between batches and between epochs is in it.

    Args:
        subject: network and batch.
        batches: per epoch.
        epochs: of each kind, after one for warming up.
    """

    def __init__(self, subject: Subject, batches: int, epochs: int) -> None:
        self.through: list[float] = []
        self.bare: list[float] = []
        self._subject, self._loader = subject, subject.loader(batches)
        self._weights = list(subject.network.parameters())
        self._optimizer = adamw(decay_groups(subject.network))
        self._schedule = Schedule().build(self._optimizer, batches * (epochs + 1), epochs + 1)
        self._since: float | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        start = self._subject.now()
        if self._since is not None:
            self.through.append(start - self._since)
        self._epoch()
        self._since = self._subject.now()
        self.bare.append(self._since - start)

    def _epoch(self) -> None:
        for batch in self._loader:
            on_device = {name: value.to(self._subject.device) for name, value in batch.items()}
            with self._subject.autocast():
                loss = self._subject.losses(on_device).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(self._weights, 1.0)
            self._optimizer.step()
            self._schedule.step()  # pyright: ignore[reportCallIssue]
            self._optimizer.zero_grad()


def milliseconds(precision: str) -> float:
    """What is taken per step on the host, found at a network too small to hide it.

    Lightning's and lit_adv's own work does not grow with the network: where a step lasts a second,
    this is far more precise than a ratio of two noisy seconds.
    """
    ratios, seconds = overheads(subject.build("tiny", 4, 16, precision), batches=25, epochs=4)
    return 1000 * median(ratio * bare for ratio, bare in zip(ratios, seconds, strict=True))


def overheads(timed: Subject, batches: int, epochs: int = 2) -> tuple[list[float], list[float]]:
    """Of every epoch, the Trainer's time over the bare loop's around it, less 1; bare seconds.

    Args:
        timed: network and batch.
        batches: per epoch.
        epochs: of each kind, after one for warming up.
    """
    clock = Epochs(timed, batches, epochs)
    module = FineTune(timed.task, Descent(gradient_clip_val=1.0))
    timed.trainer(epochs + 1, clock).fit(module, timed.loader(batches))
    around = [(a + b) / 2 for a, b in zip(clock.bare, clock.bare[1:], strict=False)]
    ratios = [taken / bare - 1 for taken, bare in zip(clock.through, around, strict=True)]
    return ratios, [bare / batches for bare in around]
