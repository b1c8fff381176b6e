"""The table of a run's results."""

from pathlib import Path
from typing import Any

import pytest

from lit_adv import results

RUN: dict[str, Any] = {
    **{name: "none" for name in ("flood", "proximal", "update", "mask", "peft")},
    **{"method": "finetune", "model": "tiny", "data": "reviews", "task": "auto"},
    "train": {"steps": 2, "seconds": 0.1, "seconds_per_step": 0.05, "peak_memory_mib": 100.0},
}


@pytest.mark.parametrize(
    "val, test, cells",
    [
        ({"loss": 0.25}, {"loss": 0.75}, ["loss", "0.2500", "0.7500"]),
        ({}, {"loss": 0.75}, ["loss", "", "0.7500"]),  # not under "validation"
        ({"loss": 0.25}, {}, ["loss", "0.2500", ""]),
    ],
)
def test_a_figure_stands_under_its_split(
    val: dict[str, float], test: dict[str, float], cells: list[str], capsys: Any
):
    results.show({**RUN, "val": val, "test": test}, Path("run"))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert [cell.strip() for cell in row.strip("\u2502").split("\u2502")] == cells
