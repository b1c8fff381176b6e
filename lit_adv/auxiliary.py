"""Losses of training examples under models that did not train on them, by cross-validation."""

import os
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig
from torch import Tensor

from lit_adv.data.datamodule import TextData
from lit_adv.flood.ada import Ada
from lit_adv.methods.finetune import FineTune
from lit_adv.tasks.task import Task

FILE = "held_out_losses.pt"


def prepare(
    flood: Ada,
    data: TextData,
    cfg: DictConfig,
    folder: Path,
    build: Callable[[], tuple[FineTune, L.Trainer]],
) -> None:
    """Give the flood its levels: from its file, from this folder, or by training.

    Every fold's losses are written as they are known, so that an interrupted run in the same folder
    goes on where it was.

    Args:
        flood: whose levels are wanted.
        data: whose training split is cut into folds.
        cfg: of the run, for its seed.
        folder: of the run.
        build: a fresh module and trainer for one fold.

    Raises:
        ValueError: the file does not exist, or is one of other data.
    """
    rows = len(data.splits.train)
    if flood.losses is not None:
        flood.adopt(_load(Path(flood.losses), rows))
        return
    if flood.folds > rows:
        raise ValueError(f"flood.folds={flood.folds}: more than the {rows} training examples")
    losses = torch.full((rows,), torch.nan)
    order = np.random.default_rng(cfg.seed).permutation(rows)
    with isolate_rng():  # the main training is as without this
        for fold in range(flood.folds):
            held_out = np.sort(order[fold :: flood.folds])
            part = folder / f"fold_{fold}.pt"
            if not part.exists():
                L.seed_everything(cfg.seed + 1 + fold, workers=True, verbose=False)
                module, trainer = build()
                rest = np.setdiff1d(np.arange(rows), held_out)
                trainer.fit(module, data.some(rest.tolist(), shuffled=True))
                _save(_losses(module, data, held_out), part)
            losses[torch.from_numpy(held_out)] = _load(part, len(held_out))
    _save(losses, folder / FILE)
    for fold in range(flood.folds):
        (folder / f"fold_{fold}.pt").unlink()
    flood.adopt(losses)


@torch.no_grad()
def _losses(module: FineTune, data: TextData, rows: np.ndarray) -> Tensor:
    task: Task = module.task.eval()
    device = next(task.parameters()).device
    losses = torch.full((len(data.splits.train),), torch.nan)
    for batch in data.some(rows.tolist(), shuffled=False):
        batch = {name: value.to(device) for name, value in batch.items()}
        losses[batch["index"].cpu()] = task.losses(task(batch), batch).float().cpu()
    return losses[torch.from_numpy(rows)]


def _save(losses: Tensor, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(losses, part)
    os.replace(part, path)


def _load(path: Path, count: int) -> Tensor:
    if not path.is_file():
        raise ValueError(f"flood.losses={path}: no such file")
    losses = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(losses, Tensor) or losses.shape != (count,):
        raise ValueError(
            f"flood.losses={path}: losses of other data: wanted one for each of {count} examples"
        )
    return losses
