"""Checkpoints are written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames: a write that is interrupted leaves the file before it.

    Lightning's own writes into the system's temporary folder and moves the file, which is a copy
    where that is another file system; and it holds the whole file in memory.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if "://" in str(path):  # not on this machine's file systems
            return super().save_checkpoint(checkpoint, path, storage_options)
        return write(checkpoint, Path(path))


def write(content: Any, path: Path) -> None:
    """Save to this file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
