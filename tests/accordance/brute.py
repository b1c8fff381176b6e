"""Gradient accordance by its definition: every pair of vectors, one by one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any, TypeAlias

import lightning as L
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from testbed import MeanPool, Tensors, batches, loss, weights
from torch import Tensor, nn

from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.tasks.classification import Classification

CLASSES = 3

ClassGradients: TypeAlias = dict[int, Tensor]
"""Of each class in one batch, flat."""


# ---- what is trained -----------------------------------------------------------------------------


def data(count: int = 7, seed: int = 0, size: int = 5) -> list[Tensors]:
    """Texts of three classes, of which batches lack some."""
    stream = torch.Generator().manual_seed(seed)
    made = []
    for number, batch in enumerate(batches(count, size, seed=seed)):
        labels = torch.randint(0, CLASSES, (size,), generator=stream)
        made.append({**batch, "labels": labels % 2 if number % 3 == 1 else labels})
    return made


def network(dropout: float = 0.0) -> MeanPool:
    """Its weights are always the same."""
    return MeanPool(CLASSES, width=6, bend=True, dropout=dropout)


def task(of: nn.Module | None = None) -> Classification:
    """Of three classes."""
    return Classification(network() if of is None else of, num_labels=CLASSES)


def watch(**options: Any) -> GradientAccordance:
    """Looks at all batches, and draws nothing."""
    return GradientAccordance(**{"batches": 1.0, "picture": None, **options})


class Weights(L.Callback):
    """Those that each batch was trained at, and those that it left."""

    def __init__(self) -> None:
        self.before: list[Tensors] = []
        self.after: list[Tensors] = []
        self.passes: list[int] = []
        """Of a Recorder, how many there were before each batch."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        self.before.append(weights(pl_module))
        self.passes.append(len(getattr(pl_module, "seen", [])))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        self.after.append(weights(pl_module))


class Log(DummyLogger):
    """All that was logged, with its step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, *args: Any, metrics: Any = None, step: int = -1, **_: Any) -> None:
        self.rows.append((step, dict(args[0] if args else metrics)))

    def series(self, name: str) -> dict[int, float]:
        """By step."""
        return {step: float(row[name]) for step, row in self.rows if name in row}


# ---- by the definition ---------------------------------------------------------------------------


def at(state: Mapping[str, Tensor], prefix: str = "task.network.") -> MeanPool:
    """The network at these weights of a module around it."""
    made = network()
    made.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()})
    return made


def gradients(
    network: nn.Module,
    batch: Tensors,
    passes: Sequence[tuple[float, Tensor | None]] = ((1.0, None),),
    names: Sequence[str] | None = None,
) -> ClassGradients:
    """Of the mean loss over each class's examples, summed over passes by their shares.

    Args:
        network: at its weights.
        batch: the batch.
        passes: share and perturbation of each.
        names: of the weights; None = all.
    """
    named = dict(network.named_parameters())
    wanted = [named[name] for name in (named if names is None else names)]
    found: ClassGradients = {}
    for label in batch["labels"].unique().tolist():
        mine = batch["labels"] == label
        losses = [share * loss(network, batch, delta)[mine].mean() for share, delta in passes]
        parts = torch.autograd.grad(torch.stack(losses).sum(), wanted)
        found[label] = torch.cat([part.flatten() for part in parts])
    return found


def whole(network: nn.Module, *batches: Tensors) -> Tensor:
    """The gradient of the mean loss over the examples of all these batches, flat."""
    losses = torch.cat([loss(network, batch) for batch in batches])
    parts = torch.autograd.grad(losses.mean(), list(network.parameters()))
    return torch.cat([part.flatten() for part in parts])


def inner(a: Tensor, b: Tensor, normalize: str = "cosine") -> float:
    """Of two vectors."""
    return float(a @ b / (a.norm() * b.norm() if normalize == "cosine" else 1))


def means(batches: Sequence[ClassGradients], normalize: str = "cosine") -> dict[str, float]:
    """Over all ordered pairs of different batches; `within`: of different classes of one batch.

    What there is no pair for is missing.
    """
    between = [
        (i == j, inner(g, h, normalize))
        for s, t in permutations(batches, 2)
        for i, g in s.items()
        for j, h in t.items()
    ]
    within = [
        inner(g, h, normalize) for s in batches for (_, g), (_, h) in combinations(s.items(), 2)
    ]
    found = {
        "cross": mean(value for alike, value in between if not alike),
        "same": mean(value for alike, value in between if alike),
        "all": mean(value for _, value in between),
        "within": mean(within),
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan
