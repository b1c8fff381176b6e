"""Checkpoints: whether one fits a module, said before training instead of in its middle."""

from pathlib import Path
from typing import Any

import torch
from torch import nn


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this library, tensors and plain values only.

    Raises:
        ValueError: no such file, not readable, or written by something else.
    """
    if not Path(path).is_file():
        raise ValueError(f"ckpt_path={path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"ckpt_path={path}: not a whole checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or "lit_adv" not in checkpoint:
        raise ValueError(f"ckpt_path={path}: a checkpoint of something else than lit_adv")
    return checkpoint


def check(path: str | Path, module: nn.Module) -> None:
    """Refuse a checkpoint that this module cannot resume from.

    Raises:
        ValueError: it cannot be loaded, or holds the weights of another model, or
            nothing but weights.
    """
    loaded = load(path)
    theirs = {k: tuple(v.shape) for k, v in loaded["state_dict"].items()}
    ours = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            there, here = theirs.get(name, "absent"), ours.get(name, "absent")
            raise ValueError(
                f"ckpt_path={path}: weights of another model: {name} is {there}, here {here}; "
                "give the model and data it was trained with"
            )
    if "optimizer_states" not in loaded:
        raise ValueError(f"ckpt_path={path}: weights only (a soup?): nothing to resume from")
