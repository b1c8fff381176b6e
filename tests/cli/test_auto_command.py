"""`python train.py flood=auto`: from the command line to the report, in one process and in two."""

import csv
import json
from pathlib import Path

import pytest
import torch
from cli.test_interrupted_command import end
from cli.test_processes_command import SHARED, run
from commandline import SMALL, train

AUTO = [
    *SMALL,
    "flood=auto",
    "flood.b=0.6",
    "flood.direction=any",
    "flood.hysteresis=0",
    "flood.accordance.every_n_steps=1",
    "flood.accordance.batches=8",
    "optimizer.lr=0.01",
    "data.label_noise=0.4",
    "trainer.max_epochs=4",
]


def logged(folder: Path, name: str) -> dict[int, float]:
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(name)]
    return {int(row["step"]): float(row[name]) for row in rows}


def test_the_decision_stands_in_the_log_and_in_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    flooding = train(monkeypatch, tmp_path / "run", *AUTO)["flooding"]
    assert (flooding["pairs"], flooding["direction"], flooding["b"]) == ("validation", "any", 0.6)
    value, levels = (
        logged(tmp_path / "run", "accordance/validation"),
        logged(tmp_path / "run", "flood/level"),
    )
    (decision,) = flooding["decisions"]
    step = decision["step"]
    assert step == flooding["step"] == min(levels) + 1
    assert set(levels.values()) == {0.6}
    assert value[step - 1] == pytest.approx(decision["accordance"], rel=1e-4)
    assert value[step - 1] * value[step - 2] < 0  # the first change
    assert all(value[row] * value[row - 1] > 0 for row in range(1, step - 1))
    assert (tmp_path / "run" / "accordance.png").stat().st_size > 0


def test_two_processes_decide_what_one_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    one = train(monkeypatch, tmp_path / "one", *AUTO)
    run(tmp_path / "two", *AUTO, *SHARED)
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert one["flooding"]["step"] is not None
    # Each process's part of a batch is a batch to the accordance, so its value is another.
    for key in ("step", "b"):
        assert two["flooding"][key] == one["flooding"][key]
    torch.testing.assert_close(end(tmp_path / "two"), end(tmp_path / "one"), rtol=1e-4, atol=1e-5)
