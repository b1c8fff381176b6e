"""Probe: how well a closed-form head answers on the features of a network as it is."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics import MeanMetric

from lit_adv.head import SHRINKAGE, Head
from lit_adv.models import configured
from lit_adv.quiet import quieten
from lit_adv.standstill import evaluating
from lit_adv.tasks.task import Task


def probe(cfg: DictConfig, shrinkage: float = SHRINKAGE) -> dict[str, dict[str, float]]:
    """The task's metrics and the loss on validation and test data, without any training.

    Args:
        cfg: of a training, of which seed, data and model count.
        shrinkage: see `functional.discriminant`.

    Raises:
        ValueError: the labels are numbers, or the network has no head of its own.
    """
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    quieten()
    data = configured.load(cfg)
    model = configured.build(cfg, data.splits)
    data.adapt(model)
    if data.splits.label_names is None:
        raise ValueError("lit-adv probe: the labels are numbers; a head of classes needs classes")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = model.task(data.splits).to(device)
    head = Head.of(task)
    rows = range(len(data.splits.train))
    head.solve(_moved(data.some(rows, shuffled=False), device), shrinkage)
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    return {name: _measured(task, _moved(loader, device)) for name, loader in loaders.items()}


def share(text: str | None) -> float:
    """The shrinkage that a command line says.

    Raises:
        ValueError: it is no number in [0, 1].
    """
    try:
        value = SHRINKAGE if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"shrinkage={text}: needs to be a number in [0, 1]")
    return value


def show(found: dict[str, dict[str, float]]) -> None:
    """As a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="a closed-form head, no training", title_justify="left")
    table.add_column("")
    for split in found:
        table.add_column(split, justify="right")
    for name in found["val"]:
        table.add_row(name, *(f"{values[name]:.4f}" for values in found.values()))
    Console().print(table)


@torch.no_grad()
def _measured(task: Task, batches: Iterator[Any]) -> dict[str, float]:
    metrics, mean = task.metrics(), MeanMetric()
    with evaluating(task):
        for batch in batches:
            logits = task(batch)
            mean.update(task.losses(logits, batch).cpu())
            metrics.update(*(part.cpu() for part in task.scored(logits, batch)))
    values = {"loss": mean.compute(), **metrics.compute()}
    return {name: float(value) for name, value in values.items()}


def _moved(batches: Any, device: torch.device) -> Iterator[Any]:
    for batch in batches:
        yield apply_to_collection(batch, Tensor, lambda tensor: tensor.to(device))
