"""Reference weights of a task, kept beside it without a second network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.func import functional_call

from lit_adv import foreach, sharding
from lit_adv.standstill import evaluating
from lit_adv.tasks.task import Batch, Task


class Teacher:
    """A copy, in float32 at least, of the weights that train; frozen weights are shared.

    Batch statistics are the live network's: they are estimates about the data, not about the
    weights.
    """

    def __init__(self, task: Task) -> None:
        self.weights: dict[str, Tensor] = {
            name: weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)
            for name, weight in task.named_parameters()
            if weight.requires_grad
        }

    @torch.no_grad()
    def logits(self, task: Task, batch: Batch) -> Tensor:
        """Predictions under the reference weights, in evaluation mode, without a graph."""
        if sharding.dealt_out(task):
            with evaluating(task), self._copied_into(task):
                return task(batch)
        live = dict(task.named_parameters())
        weights = {name: weight.to(live[name].dtype) for name, weight in self.weights.items()}
        with evaluating(task):
            return functional_call(task, weights, (batch,))

    @torch.no_grad()
    def follow(self, task: Task, keep: float) -> None:
        """`weights <- keep * weights + (1 - keep) * the task's`; keep = 0 copies exactly."""
        live = dict(task.named_parameters())
        mine = list(self.weights.values())
        theirs = [live[name].detach() for name in self.weights]
        if keep == 0:
            foreach.copy_(mine, theirs)
        else:
            theirs = [t.to(m.dtype) for t, m in zip(theirs, mine, strict=True)]
            foreach.lerp_(mine, theirs, 1 - keep)

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take over these weights.

        Raises:
            ValueError: they are not the ones that train now.
        """
        if weights.keys() != self.weights.keys():
            name = sorted(weights.keys() ^ self.weights.keys())[0]
            raise ValueError(
                f"ckpt_path: the reference weights there are not those that train here ({name}); "
                "train the same weights, or start anew"
            )
        for name, weight in self.weights.items():
            weight.copy_(sharding.like(weights[name], weight))

    @contextmanager
    def _copied_into(self, task: Task) -> Iterator[None]:
        # A sharded module puts its weights together from memory of its own, whatever its
        # attributes are.
        live = dict(task.named_parameters())
        theirs = [live[name] for name in self.weights]
        saved = [weight.detach().clone() for weight in theirs]
        foreach.copy_(theirs, list(self.weights.values()))
        try:
            yield
        finally:
            foreach.copy_(theirs, saved)

    @property
    def whole(self) -> dict[str, Tensor]:
        """The weights, where processes have parts of them put together; all ask at once."""
        return {name: sharding.whole_on_host(weight) for name, weight in self.weights.items()}
