"""For tests of updates: where the weights stood in every pass, and a loss all of whose derivatives
are known."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from testbed import (
    WORDS,
    Answer,
    MeanPool,
    Recorder,
    Run,
    Tensors,
    derivative,
    fit,
    loss,
    recording,
    sgd,
    weights,
)
from torch import Tensor, nn

from lit_adv.methods.finetune import FineTune
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch, Task
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import SecondLook, Update

UPDATES: dict[str, Callable[..., SecondLook]] = {
    "sam": partial(SAM, 0.3),
    "asam": partial(ASAM, 0.5),
    "awp": partial(AWP, 0.1, step_size=0.1),
    "penalty": partial(GradientPenalty, 0.2, radius=0.3),
    "backstitch": partial(Backstitch, 0.5),
}
"""Every update that looks twice."""

every_update = pytest.mark.parametrize("name", UPDATES)


def small(dropout: float = 0.0, norm: bool = False) -> MeanPool:
    """Where a BERT would take its time."""
    return MeanPool(width=16, bend=True, dropout=dropout, norm=norm)


class Standing(Recorder):
    """Mixed into a method: keeps where the weights stood in every pass."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.places: list[Tensors] = []

    def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        self.places.append(weights(self.task))
        return super().logits(batch, delta)


def looks(
    update: Update, task: Task, data: Sequence[Tensors], lr: float = 0.0, **options: Any
) -> tuple[Run, list[Tensors]]:
    """One step of plain descent over all these micro-batches, and where the weights stood."""
    descent = sgd(lr=lr, update=update, accumulate_grad_batches=len(data), **options)
    module = recording(FineTune, Standing)(task, descent)
    run = fit(module, data)
    assert isinstance(module, Standing)
    assert len(run.gradients) == 1
    return run, module.places


def gradient_at(network: nn.Module, data: Sequence[Tensors], place: Tensors) -> Tensors:
    """Gradient of the mean loss over all these examples, where the weights stand like this."""
    there = deepcopy(network)
    with torch.no_grad():
        for name, weight in there.named_parameters():
            weight.copy_(place[f"network.{name}"])
    return derivative(torch.cat([loss(there, batch) for batch in data]).mean(), there)


def flat(tensors: Tensors) -> Tensor:
    """All of them as one vector."""
    return torch.cat([value.flatten() for value in tensors.values()])


def moved(places: Sequence[Tensors]) -> Tensors:
    """From the first place to the last."""
    return {name: places[-1][name] - place for name, place in places[0].items()}


def order(errors: Sequence[float]) -> float:
    """Of convergence, from the last two of errors of which each is at half the rate before."""
    return float(torch.log2(torch.tensor(errors[-2] / errors[-1], dtype=torch.float64)))


class _Point(nn.Module):
    """Six coordinates: a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(3)
        self.matrix = nn.Parameter(torch.randn(2, 2, generator=stream))
        self.vector = nn.Parameter(torch.randn(2, generator=stream))
        self.words = nn.Embedding(WORDS, 2).requires_grad_(False)
        self.double()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Answer:
        return Answer(self.words(input_ids).mean(1))


class Bowl(Classification):
    """`l_b = 1/2 x^T Q x + c_b^T x` over six coordinates x, c_b by the label."""

    def __init__(self, tilt: float = 1.0) -> None:
        super().__init__(_Point(), num_labels=2)
        stream = torch.Generator().manual_seed(4)
        root = torch.randn(6, 6, generator=stream).double()
        self.Q = root @ root.T / 6 + torch.eye(6).double()
        self.c = tilt * torch.randn(2, 6, generator=stream).double()

    @property
    def x(self) -> Tensor:
        matrix, vector = (self.get_parameter(f"network.{name}") for name in ("matrix", "vector"))
        return torch.cat([matrix.flatten(), vector])

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return self.x @ self.Q @ self.x / 2 + self.c[batch["labels"]] @ self.x

    def slope(self, data: Sequence[Tensors], x: Tensor) -> Tensor:
        """The gradient at x of the mean over all these examples."""
        return self.Q @ x + torch.cat([self.c[batch["labels"]] for batch in data]).mean(0)
