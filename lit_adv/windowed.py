"""Windowed: effective batches, how their gradients are gathered, and when they are whole."""

import lightning as L
import torch
from torch import Tensor, nn

from lit_adv import parallel
from lit_adv.descent import Descent
from lit_adv.flood.none import NoFlood
from lit_adv.random_state import RandomState
from lit_adv.resumable import Resumable
from lit_adv.tasks.task import Batch, Task
from lit_adv.window import Window


class Windowed(Resumable):
    """Cuts the batches of an epoch into effective batches, each with its window.

    Args:
        task: the network and its losses.
        descent: how the weights descend.
    """

    def __init__(self, task: Task, descent: Descent | None = None) -> None:
        super().__init__(task, descent)
        self.training_weights: list[nn.Parameter] = []
        """What the optimizer steps: the network's, and a method's own."""
        self._own_weights: list[nn.Parameter] = []
        self.again = False
        """Whether this is the second look of an update at the effective batch."""
        self._rehearsal: list[tuple[Batch, int, RandomState]] = []
        self._window: Window | None = None

    @property
    def window(self) -> Window:
        """The effective batch: `accumulate_grad_batches` batches, fewer at an epoch's end."""
        if self._window is None:
            left = batches_left(self.trainer)
            size = int(min(self.descent.accumulate_grad_batches, left))
            size = len(self._rehearsal) if self.again else size
            always = parallel.reduces_always(self.trainer.strategy)
            self._window = self._open(size, reduces_always=always)
        return self._window

    def _open(self, size: int, *, reduces_always: bool = False) -> Window:
        """The window of an effective batch of so many batches."""
        update, weights = self.descent.update, self.training_weights
        backward = update.backward(self._backward, weights)
        first_of_two = self.looks_again and not self.again
        flood = NoFlood() if first_of_two and update.seeks_worst else self.descent.flood
        return Window(size, flood, weights, backward, reduces_always=reduces_always)

    @property
    def completes(self) -> bool:
        """Whether the batch at hand is the last one of its effective batch."""
        position = self.window.position + 1
        if self.again:
            return position == len(self._rehearsal)
        # Data without a length say only at their last batch that it is the last.
        return position == self.descent.accumulate_grad_batches or self._ends_epoch

    @property
    def _ends_epoch(self) -> bool:
        return ends_epoch(self.trainer)

    def _backward(self, number: Tensor | None, *, last: bool = False, **options: bool) -> None:
        if last and number is not None and self._own_weights:
            # A method's own weights may take no part in a step; reductions wait for all of them.
            number = number + 0 * torch.stack([w.sum() for w in self._own_weights]).sum()
        parallel.backward(self, self.training_weights, number, last=last, **options)

    @property
    def open_batches(self) -> int:
        return 0 if self._window is None else self._window.position

    @property
    def under_way(self) -> bool:
        """Whether more batches, or a second look, belong to the effective batch at hand."""
        return self._window is not None or self.again

    @property
    def looks_again(self) -> bool:
        """Whether the update looks twice at this effective batch."""
        return self.descent.update.looks_again(self.steps_taken)

    def find_training_weights(self) -> None:
        """Note what trains: once per epoch."""
        # Callbacks may thaw weights between epochs; methods still some within a step.
        self.training_weights = [weight for weight in self.parameters() if weight.requires_grad]
        task = {id(weight) for weight in self.task.parameters()}
        self._own_weights = [weight for weight in self.training_weights if id(weight) not in task]


def batches_left(trainer: L.Trainer) -> float:
    """Of the epoch, with the one at hand; inf for data without a length."""
    return trainer.num_training_batches - trainer.fit_loop.batch_idx


def ends_epoch(trainer: L.Trainer) -> bool:
    """Whether the batch at hand is the epoch's last."""
    return trainer.is_last_batch or batches_left(trainer) == 1
