"""The runs below some folders."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lit_adv.reports.reading import read
from lit_adv.reports.run import Run

NO_RUNS_IN = ("checkpoints", "export", "attacks")
"""Folders of a run in which there are none."""


def runs(folders: Sequence[Path]) -> list[Run]:
    """All runs below these folders, or in them, in the natural order of their names.

    Raises:
        ValueError: there is no such folder, or no run in any of them.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the folder of a sweep or of a run")
    found = {path for folder in folders for path in _below(folder.resolve())}
    if not found:
        raise ValueError(
            f"{', '.join(map(str, folders))}: no runs in it; a run's folder holds config.yaml and "
            "results.json, or .hydra"
        )
    base = os.path.commonpath([folder.resolve() for folder in folders])
    named = {Path(os.path.relpath(path, base)).as_posix(): path for path in found}
    return [read(named[name], name) for name in sorted(named, key=natural)]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key by which numbers in names are numbers.

    >>> sorted(["10", "9", "b2", "a10", "a9"], key=natural)
    ['9', '10', 'a9', 'a10', 'b2']
    """
    parts = re.findall(r"\d+|\D+", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _below(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        if ".hydra" in folders or {"config.yaml", "results.json"} <= set(files):
            yield Path(path)
        folders[:] = [f for f in folders if f not in NO_RUNS_IN and not f.startswith(".")]
