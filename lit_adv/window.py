"""Window: one effective batch, from one optimizer step to the next, and its gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_adv import foreach
from lit_adv.flood.flood import Flood
from lit_adv.tasks.task import Batch


class Window:
    """Gathers in `.grad` the gradient of one effective batch's flooded loss plus its penalties.

    The effective batch may be cut into micro-batches (accumulation), and a method may pass over
    each of these several times, every pass with its share. Every example counts the same however
    the batch is cut, and the task loss is the mean over examples and passes, times the sum of the
    shares.

    Flooding a batch needs the slope of the whole window's loss, known only at its last pass. Until
    then `.grad` holds the gradient of the task loss alone; that of penalties, which are not
    flooded, waits in a second buffer. It is needed only where several passes or micro-batches,
    penalties and a flood of the whole batch meet.

    Args:
        size: micro-batches in this window.
        flood: which slope a loss has.
        weights: what trains.
        backward: called with the scalar to differentiate, and `retain_graph`.
    """

    def __init__(
        self,
        size: int,
        flood: Flood,
        weights: Sequence[Tensor],
        backward: Callable[..., None] = torch.autograd.backward,
    ) -> None:
        self._size = size
        self.flood = flood
        self._weights = weights
        self._backward = backward

        self._position = 0
        self._micro = 0  # examples of the micro-batch at hand
        self._expected = 0  # examples, if all micro-batches are as large as the first
        self._examples = 0
        self._loss: Tensor | None = None  # sum over examples and passes, by share
        self._below: Tensor | None = None  # the part of _seen below the flood level
        self._seen = 0.0  # sum over passes of share * examples
        self._penalties: list[Tensor | None] = [None] * len(weights)
        self._paid: Tensor | None = None  # sum of the penalties over examples

    @property
    def full(self) -> bool:
        """Whether the gradient is that of the whole effective batch."""
        return self._position == self._size

    @property
    def loss(self) -> Tensor:
        """Mean task loss so far, not flooded."""
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
        self._add(self._enter(losses, share, batch), self._mean(penalty))

    def conclude(
        self,
        losses: Tensor | None,
        share: float = 1.0,
        penalty: Tensor | None = None,
        batch: Batch | None = None,
    ) -> None:
        """The last pass over the micro-batch at hand: its gradient, and the penalty's, added.

        Args:
            losses: as in `accumulate`; None = all passes have been accumulated.
            share: as in `accumulate`.
            penalty: as in `accumulate`.
            batch: as in `accumulate`.
        """
        task = None if losses is None else self._enter(losses, share, batch)
        extra = self._mean(penalty)
        if self._position < self._size - 1:
            self._add(task, extra)
        else:
            if self.flood.of == "batch":
                slope = self._turn()
                task = None if task is None else slope * task
            if task is not None or extra is not None:
                self._backward(_sum(task, extra))

        self._position += 1
        self._examples += self._micro
        if self.full and self._examples != self._expected and (grads := _there(self._grads())):
            foreach.mul_(grads, self._expected / self._examples)

    def _enter(self, losses: Tensor, share: float, batch: Batch | None) -> Tensor:
        detached = losses.detach()
        self._micro = len(losses)
        self._expected = self._expected or self._size * self._micro
        self._seen += share * len(losses)
        self._loss = _plus(self._loss, share * detached.sum())
        if self.flood.of == "example":
            slopes = self.flood.slope(detached, batch)
            self._below = _plus(self._below, share * (slopes < 0).to(losses.dtype).sum())
            losses = slopes * losses
        return share * losses.sum() / self._expected

    def _mean(self, penalty: Tensor | None) -> Tensor | None:
        if penalty is None:
            return None
        self._paid = _plus(self._paid, penalty.detach().sum())
        return penalty.sum() / self._expected

    def _add(self, task: Tensor | None, extra: Tensor | None) -> None:
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

    def _turn(self) -> Tensor:
        """Give the gradient so far the slope of the window's loss, and join the penalties'."""
        slope = self.flood.slope(self.loss)
        self._below = (slope < 0) * self._seen
        grads = _there(self._grads())
        if grads:
            foreach.mul_(grads, slope)
        for weight, penalty in zip(self._weights, self._penalties, strict=True):
            if penalty is not None:
                weight.grad = _plus(weight.grad, penalty)
        return slope

    def _swap(self) -> None:
        grads = self._grads()
        for weight, penalty in zip(self._weights, self._penalties, strict=True):
            weight.grad = penalty
        self._penalties = grads

    def _grads(self) -> list[Tensor | None]:
        return [weight.grad for weight in self._weights]


def _there(grads: list[Tensor | None]) -> list[Tensor]:
    return [grad for grad in grads if grad is not None]


def _sum(task: Tensor | None, extra: Tensor | None) -> Tensor:
    if task is None:
        assert extra is not None
        return extra
    return task if extra is None else task + extra


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b
