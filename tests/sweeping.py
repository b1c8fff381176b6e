"""Sweeps from the command line, in this process."""

import csv
import sys
from pathlib import Path

import pytest
from commandline import SMALL

from lit_adv.cli.train import main


def sweep(folder: Path, *overrides: str) -> list[str]:
    """The command line of a sweep in this folder."""
    places = [f"hydra.sweep.dir={folder}", f"data.cache={folder.parent}"]
    return ["train.py", "-m", *SMALL, *overrides, *places]


def finish(monkeypatch: pytest.MonkeyPatch, *command: str) -> int | str | None:
    """Run a sweep in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [*command])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def figures(folder: Path) -> list[dict[str, str]]:
    """sweep.csv without what the clock and the memory say."""
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("train_")} for row in rows]
