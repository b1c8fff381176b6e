"""Window: one effective batch, from one optimizer step to the next, and its gradient."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lit_adv import foreach, processes
from lit_adv.flood.flood import Flood
from lit_adv.tasks.task import Batch


class Backward(Protocol):
    """Adds the gradient of a number to the weights' `.grad`; the last one of a window reduces it.

    None is the number where all has been differentiated before.
    """

    def __call__(
        self, number: Tensor | None, *, last: bool = False, retain_graph: bool = False
    ) -> None: ...


def alone(number: Tensor | None, *, last: bool = False, retain_graph: bool = False) -> None:
    """In a single process there is nothing to reduce."""
    if number is not None:
        number.backward(retain_graph=retain_graph)


class Window:
    """Gathers in `.grad` the gradient of one effective batch's flooded loss plus its penalties.

    The effective batch may be cut into micro-batches (accumulation) and dealt to several processes,
    and a method may pass over each part several times, every pass with its share. Every example
    counts the same however the batch is cut, and the task loss is the mean over examples and
    passes, times the sum of the shares. Gradients of processes are averaged by the last backward
    pass, and by no other.

    Flooding a batch needs the slope of the whole window's loss, known only at its last pass. Until
    then `.grad` holds the gradient of the task loss alone; that of penalties, which are not
    flooded, waits in a second buffer. It is needed only where several passes or micro-batches,
    penalties and a flood of the whole batch meet.

    Args:
        size: micro-batches that are expected in this window.
        flood: which slope a loss has.
        weights: what trains.
        backward: see Backward.
        reduces_always: whether every backward pass averages over the processes, as where their
            weights are sharded. Then all have to divide by the same number from the first one on.
    """

    def __init__(
        self,
        size: int,
        flood: Flood,
        weights: Sequence[Tensor],
        backward: Backward = alone,
        *,
        reduces_always: bool = False,
    ) -> None:
        self._size = size
        self._reduces_always = reduces_always
        self.flood = flood
        self._weights = weights
        self._backward = backward

        self.position = 0
        """Micro-batches that are whole."""
        self.full = False
        """Whether the gradient is that of the whole effective batch."""
        self._micro = 0  # examples of the micro-batch at hand
        # Examples of this process, if all micro-batches are as large as the first.
        self._expected: int | Tensor | None = None
        self._examples = 0
        self._loss: Tensor | None = None  # sum over examples and passes, by share
        self._below: Tensor | None = None  # the part of _seen below the flood level
        self._seen: float | Tensor = 0.0  # sum over passes of share * examples
        self._penalties: list[Tensor | None] = [None] * len(weights)
        self._paid: Tensor | None = None  # sum of the penalties over examples

    @property
    def loss(self) -> Tensor:
        """Mean task loss so far, not flooded; of all processes once the window is full."""
        assert self._loss is not None, "no losses yet"
        return self._loss / self._seen

    @property
    def watched(self) -> Tensor:
        """A number that is finite as long as losses and penalties are."""
        return self.loss if self._paid is None else self.loss + self._paid

    @property
    def flooded(self) -> Tensor:
        """Share of the losses so far that lay below the flood level."""
        return self.loss.new_zeros(()) if self._below is None else self._below / self._seen

    def accumulate(
        self,
        losses: Tensor,
        share: float = 1.0,
        penalty: Tensor | None = None,
        batch: Batch | None = None,
    ) -> None:
        """One pass over the micro-batch at hand, with more to come: its gradient, added.

        Args:
            losses: task loss of every example, [batch].
            share: weight of this pass in the objective.
            penalty: per example, [batch]; not flooded.
            batch: the micro-batch, for floods whose levels depend on it.
        """
        self._add(self._enter(losses, share, batch), self._pay(penalty))

    def conclude(
        self,
        losses: Tensor | None,
        share: float = 1.0,
        penalty: Tensor | None = None,
        batch: Batch | None = None,
        last: bool | None = None,
    ) -> None:
        """The last pass over the micro-batch at hand: its gradient, and the penalty's, added.

        Args:
            losses: as in `accumulate`; None = all passes have been accumulated.
            share: as in `accumulate`.
            penalty: as in `accumulate`.
            batch: as in `accumulate`.
            last: whether no micro-batch follows in this window; None = if it is as long as
                expected.
        """
        task = None if losses is None else self._enter(losses, share, batch)
        extra = self._pay(penalty)
        self.position += 1
        self._examples += self._micro
        self.full = self.position == self._size if last is None else last
        if self.full:
            self._complete(task, extra)
        else:
            self._add(task, extra)

    def _enter(self, losses: Tensor, share: float, batch: Batch | None) -> Tensor:
        detached = losses.detach()
        self._micro = len(losses)
        if self._expected is None:
            self._expected = self._size * self._micro
            if self._reduces_always:
                mine = torch.full_like(detached.sum(), self._expected)
                self._expected = processes.add_up(mine) / processes.count()
        self._seen += share * len(losses)
        self._loss = _plus(self._loss, share * detached.sum())
        if self.flood.of == "example":
            slopes = self.flood.slope(detached, batch)
            self._below = _plus(self._below, share * (slopes < 0).to(losses.dtype).sum())
            losses = slopes * losses
        return share * losses.sum()

    def _pay(self, penalty: Tensor | None) -> Tensor | None:
        if penalty is None:
            return None
        self._paid = _plus(self._paid, penalty.detach().sum())
        return penalty.sum()

    def _add(self, task: Tensor | None, extra: Tensor | None) -> None:
        """A pass that is not the window's last."""
        assert self._expected is not None, "losses come before penalties"
        task, extra = _over(task, self._expected), _over(extra, self._expected)
        if extra is None or self.flood.of != "batch":
            if task is not None or extra is not None:
                self._backward(_sum(task, extra))
            return
        # The task's gradient may still be turned, the penalty's never.
        if task is not None:
            self._backward(task, retain_graph=True)
        self._swap()
        self._backward(extra)
        self._swap()

    def _complete(self, task: Tensor | None, extra: Tensor | None) -> None:
        """The last pass: mean over the examples there were, the window's slope, all processes."""
        examples = self._over_processes()
        assert self._expected is not None, "no losses yet"
        fitting = isinstance(examples, int) and examples == self._expected
        fit = None if fitting else self._expected / examples
        slope = None
        if self.flood.of == "batch":
            slope = self.flood.slope(self.loss)
            self._below = (slope < 0) * self._seen

        for factor, grads in ((slope, self._grads()), (fit, self._grads() + self._penalties)):
            there = [grad for grad in grads if grad is not None]
            if factor is not None and there:
                foreach.mul_(there, factor)
        for weight, penalty in zip(self._weights, self._penalties, strict=True):
            if penalty is not None:
                weight.grad = _plus(weight.grad, penalty)

        task, extra = _over(task, examples), _over(extra, examples)
        if task is not None and slope is not None:
            task = slope * task
        self._backward(_sum(task, extra), last=True)

    def _over_processes(self) -> int | Tensor:
        """Make loss and shares those of all processes; returns the mean number of examples."""
        if processes.count() == 1:
            return self._examples
        loss = self._loss
        assert loss is not None, "no losses yet"
        numbers = (loss, self._paid, self._below, self._seen, self._examples)
        sums = processes.add_up(torch.stack([_like(loss, number) for number in numbers]))
        self._loss, paid, self._below, self._seen, examples = sums.unbind()
        self._paid = None if self._paid is None else paid
        return examples / processes.count()

    def _swap(self) -> None:
        grads = self._grads()
        for weight, penalty in zip(self._weights, self._penalties, strict=True):
            weight.grad = penalty
        self._penalties = grads

    def _grads(self) -> list[Tensor | None]:
        return [weight.grad for weight in self._weights]


def _like(loss: Tensor, number: Tensor | float | None) -> Tensor:
    if isinstance(number, Tensor):
        return number.to(loss)
    # Filled on the device: a copy from the host would make the host wait.
    return torch.full_like(loss, number or 0.0)


def _over(number: Tensor | None, examples: int | Tensor) -> Tensor | None:
    return None if number is None else number / examples


def _sum(task: Tensor | None, extra: Tensor | None) -> Tensor | None:
    if task is None or extra is None:
        return extra if task is None else task
    return task + extra


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b
