"""Trainers: Lightning's, with the options of a configuration, and what they keep of a run."""

from datetime import timedelta
from pathlib import Path

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from lit_adv import better
from lit_adv.callbacks.best import Best
from lit_adv.callbacks.keeper import Keeper
from lit_adv.checkpoint_io import AtomicCheckpointIO
from lit_adv.ranges import at_least, whole

BY_HAND = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
"""Trainer's options that manual optimisation takes away and Descent gives back."""


def build(cfg: DictConfig, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    """Lightning's Trainer with the callbacks and loggers of the configuration."""
    options = _options(cfg)
    return instantiate(
        options,
        callbacks=[*callbacks, *(instantiate(node) for node in cfg.callbacks.values())],
        logger=[instantiate(node) for node in cfg.logger.values()],
        plugins=[AtomicCheckpointIO(), *(options.get("plugins") or [])],
        default_root_dir=str(folder),
    )


def alone(cfg: DictConfig) -> L.Trainer:
    """A trainer of one process that leaves no trace."""
    options = {"devices": 1, "strategy": "auto", "logger": False, "enable_checkpointing": False}
    return instantiate(_options(cfg), **options, default_root_dir=cfg.output_dir)


def _options(cfg: DictConfig) -> DictConfig:
    options = OmegaConf.to_container(cfg.trainer, resolve=True)  # its parts refer to each other
    assert isinstance(options, dict)
    return OmegaConf.create({key: v for key, v in options.items() if key not in BY_HAND})


def keepers(monitor: str, folder: Path, last: DictConfig) -> list[ModelCheckpoint]:
    """Keep checkpoints/best.ckpt by the monitored metric, and checkpoints/last.ckpt.

    Args:
        monitor: the metric.
        folder: of the run.
        last: `every_n_train_steps` and `every_n_minutes`, when to write the last weights beside the
            ends of epochs; None = not.
    """
    mode = "min" if better.less(monitor) else "max"
    options = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
    best = Best(filename="best", monitor=monitor, mode=mode, **options)
    # Of its own: save_last of the other writes only when there is a new best.
    options = {**options, "filename": "last"}
    # Not by Lightning's rule, which leaves out epochs that end without a validation.
    kept = [best, Keeper(save_on_train_epoch_end=True, **options)]
    if last.every_n_train_steps is not None:
        steps = whole(1, "checkpoint.every_n_train_steps", last.every_n_train_steps)
        kept.append(Keeper(every_n_train_steps=steps, **options))
    if last.every_n_minutes is not None:
        minutes = at_least(0, "checkpoint.every_n_minutes", last.every_n_minutes)
        kept.append(Keeper(train_time_interval=timedelta(minutes=minutes), **options))
    return kept
