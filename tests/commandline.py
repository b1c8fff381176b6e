"""The command line, in this process: what `python train.py ...` does, without its start-up."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_adv.cli.train import main

SMALL = [
    "data.train_size=48",
    "data.validation_size=32",
    "data.test_size=32",
    "data.batch_size=16",
    "model.width=16",
    "model.heads=2",
    "model.max_tokens=64",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
]


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> dict[str, Any]:
    """Run in this folder; returns results.json."""
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides, f"hydra.run.dir={folder}"])
    monkeypatch.setenv("LIT_ADV_CACHE", str(folder.parent))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    main()
    return json.loads((folder / "results.json").read_text())


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *args: str
) -> str:
    """Run what must be refused; returns the one line that it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        train(monkeypatch, folder, *args)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
