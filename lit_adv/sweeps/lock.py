"""Locks: one process per folder; the system itself opens them again when a process dies."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"


@contextmanager
def sole(folder: Path, doing: str) -> Iterator[None]:
    """Nobody else does this in the folder as long as the block runs.

    Args:
        folder: made if there is none.
        doing: what, for the message: "a sweep".

    Raises:
        ValueError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner"
    try:
        held = FileLock(folder / NAME).acquire(blocking=False)
    except Timeout:
        who = owner.read_text() if owner.exists() else "another process"
        raise ValueError(
            f"{folder}: {who} is at work on {doing} in this folder; wait for its end, stop it, or "
            "take another one by hydra.sweep.dir=FOLDER"
        ) from None
    with held:
        owner.write_text(f"process {os.getpid()} of {socket.gethostname()}")
        try:
            yield
        finally:
            owner.unlink(missing_ok=True)


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Whoever else has this folder's lock is waited for: a process that outlived its sweep."""
    with FileLock(folder / NAME):
        yield
