"""A LightningModule of somebody else's: automatic optimisation, batches that are tuples."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from accordance.brute import CLASSES, ClassGradients
from testbed import without_lightnings_own_warnings
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def pairs(count: int = 7, seed: int = 0, size: int = 6) -> list[Pair]:
    """Inputs, and classes of which batches lack some."""
    stream = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 4, generator=stream, dtype=torch.float64),
            torch.randint(0, CLASSES - n % 2, (size,), generator=stream),
        )
        for n in range(count)
    ]


class Loader:
    """Batches in their order, drawn without any random stream."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class GoesOn(Loader):
    """Batches in another order each epoch, which goes on where a checkpoint says.

    Args:
        batches: of an epoch.
        parts: so many of which stay together.
    """

    def __init__(self, batches: Sequence[Any], parts: int = 1) -> None:
        super().__init__(batches)
        self.done, self.epoch, self.parts = 0, 0, parts

    def __iter__(self) -> Iterator[Any]:
        if self.done == len(self):
            self.done, self.epoch = 0, self.epoch + 1
        stream = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(len(self) // self.parts, generator=stream)
        rows = [self.parts * n + part for n in order.tolist() for part in range(self.parts)]
        for row in rows[self.done :]:
            self.done += 1
            yield self.batches[row]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done, self.epoch = state["done"], state["epoch"]


class Plain(L.LightningModule):
    """Two layers with batch norm and dropout.

    Args:
        dropout: share of hidden units.
        norm: whether there is a batch norm.
        observe: shown the losses of each training pass.
    """

    def __init__(
        self,
        dropout: float = 0.0,
        norm: bool = False,
        observe: Callable[[Any, Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, CLASSES)
        self.observe = observe
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.body(x)).tanh()))

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        losses = cross_entropy(self, batch)
        if self.observe is not None:
            self.observe(batch, losses)
        self.log("train/loss", losses.mean())
        return losses.mean()

    def validation_step(self, batch: Pair, batch_idx: int) -> None:
        self.log("val/loss", cross_entropy(self, batch).mean(), batch_size=len(batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.3)


def cross_entropy(module: L.LightningModule, batch: Any) -> Tensor:
    """Of each example."""
    x, y = batch
    return F.cross_entropy(module(x), y, reduction="none")


def classes(batch: Any) -> Tensor:
    """The labels, which come second."""
    return batch[1]


def of_plain(
    module: Plain,
    batch: Pair,
    losses: Callable[[L.LightningModule, Any], Tensor] = cross_entropy,
    *,
    alike: bool = False,
) -> ClassGradients:
    """By hand: the gradient of each class in a batch, or of all examples as one class."""
    x, y = batch
    rows = {0: y == y} if alike else {int(label): y == label for label in y.unique()}
    found: ClassGradients = {}
    for label, mine in rows.items():
        parts = torch.autograd.grad(
            losses(module, (x[mine], y[mine])).mean(), [*module.parameters()]
        )
        found[label] = torch.cat([part.flatten() for part in parts])
    return found


def trained(
    module: L.LightningModule,
    *callbacks: L.Callback,
    data: Any = None,
    validation: Any = None,
    epochs: int = 2,
    resume: Any = None,
    **options: Any,
) -> L.Trainer:
    """Train on the CPU."""
    settings = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    torch.manual_seed(3)
    with without_lightnings_own_warnings():
        trainer = L.Trainer(**{**settings, **options}, callbacks=[*callbacks])
        data = Loader(pairs()) if data is None else data
        trainer.fit(module, data, validation, ckpt_path=resume)
    return trainer
