"""Losses of training examples under models that did not train on them, by cross-validation."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lit_adv import checkpoint
from lit_adv.checkpoint_io import write
from lit_adv.data.batched import Batched
from lit_adv.flood.ada import Ada
from lit_adv.methods.finetune import FineTune
from lit_adv.tasks.task import Task

FILE = "held_out_losses.pt"

DECISIVE = ("seed", "task", "model", "peft", "data", "optimizer", "scheduler", "trainer")
"""What the auxiliary models depend on, beside the examples and the number of folds."""


def prepare(
    flood: Ada,
    data: Batched[Any],
    cfg: DictConfig,
    folder: Path,
    build: Callable[[], tuple[FineTune, L.Trainer]],
) -> None:
    """Give the flood its levels: from its file, from this folder, or by training.

    Every fold's losses are written as they are known, so that an interrupted run in the same folder
    goes on where it was; what a run of other settings left there is not taken.

    Args:
        flood: whose levels are wanted.
        data: whose training split is cut into folds.
        cfg: of the run: its seed, and what else the auxiliary models depend on.
        folder: of the run.
        build: a fresh module and trainer for one fold.

    Raises:
        ValueError: the file does not exist, or is one of other data.
    """
    rows = len(data.splits.train)
    examples = _examples(data)
    if flood.losses is not None:
        flood.adopt(_load(Path(flood.losses), rows, examples))
        return
    if flood.folds > rows:
        raise ValueError(f"flood.folds={flood.folds}: more than the {rows} training examples")
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    made = _digest(examples, flood.folds, *(settings.get(key) for key in DECISIVE))
    losses = _made(folder / FILE, made)
    if losses is not None:
        flood.adopt(losses)
        return
    losses = torch.full((rows,), torch.nan)
    order = np.random.default_rng(cfg.seed).permutation(rows)
    with isolate_rng():  # the main training is as without this
        for fold in range(flood.folds):
            held_out = np.sort(order[fold :: flood.folds])
            part = folder / f"fold_{fold}.pt"
            known = _made(part, made)
            if known is None:
                L.seed_everything(cfg.seed + 1 + fold, workers=True, verbose=False)
                module, trainer = build()
                rest = np.setdiff1d(np.arange(rows), held_out)
                trainer.fit(module, data.some(rest.tolist(), shuffled=True))
                known = _losses(module, data, held_out, trainer.strategy.root_device)
                write({"losses": known, "made": made}, part)
            losses[torch.from_numpy(held_out)] = known
    write({"losses": losses, "made": made, "examples": examples}, folder / FILE)
    for part in folder.glob("fold_*.pt"):
        part.unlink()
    flood.adopt(losses)


def check(path: str | Path, data: Batched[Any]) -> None:
    """Refuse to resume from a checkpoint without levels for these examples.

    Raises:
        ValueError: it has none, or those of another number of examples.
    """
    levels, rows = checkpoint.load(path)["lit_adv"]["flood"].get("levels"), len(data.splits.train)
    if levels is None or len(levels) != rows:
        there = "no levels" if levels is None else f"levels of {len(levels)} examples"
        raise ValueError(
            f"ckpt_path={path}: holds {there}, but flood=ada needs those of {rows}; give the flood "
            "and data it was trained with"
        )


@torch.no_grad()
def _losses(module: FineTune, data: Batched[Any], rows: np.ndarray, device: torch.device) -> Tensor:
    task: Task = module.task.eval().to(device)  # after training Lightning moves it to the host
    losses = torch.full((len(data.splits.train),), torch.nan)
    for batch in data.some(rows.tolist(), shuffled=False):
        batch = {name: value.to(device) for name, value in batch.items()}
        losses[batch["index"].cpu()] = task.losses(task(batch), batch).float().cpu()
    return losses[torch.from_numpy(rows)]


def _examples(data: Batched[Any]) -> str:
    return _digest(*data.splits.train.content)


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]


def _made(path: Path, made: str) -> Tensor | None:
    """The losses in this file, if it was made like this."""
    content = torch.load(path, weights_only=True) if path.exists() else {}
    return content["losses"] if content.get("made") == made else None


def _load(path: Path, count: int, examples: str) -> Tensor:
    key = f"flood.losses={path}"
    if not path.is_file():
        raise ValueError(f"{key}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{key}: cannot be read: not a {FILE}") from error
    losses = content.get("losses") if isinstance(content, dict) else content
    if not isinstance(losses, Tensor) or losses.shape != (count,):
        raise ValueError(f"{key}: losses of other data: wanted one for each of {count} examples")
    if isinstance(content, dict) and content.get("examples") != examples:
        raise ValueError(f"{key}: losses of other data: the training examples are not the same")
    if not losses.isfinite().all():
        raise ValueError(f"{key}: some losses are not finite: the auxiliary models did not learn")
    return losses
