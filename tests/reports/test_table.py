"""sweep.csv: a row per run, the settings that differ as columns, wall-clock figures last."""

import csv
import io
from pathlib import Path

from made import done, run

from lit_adv.reports import table
from lit_adv.reports.report import read
from lit_adv.reports.sweep import Sweep

COSTS = ["train_seconds", "train_seconds_per_step", "train_peak_memory_mib"]


def rows(sweep: Sweep) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.text(sweep), newline="")))


def test_columns_are_what_differs_then_the_outcome_then_the_clock(flooded: Sweep):
    found = rows(flooded)
    assert len(found) == 104
    metrics = ["val/accuracy", "val/loss", "test/accuracy", "test/loss"]
    outcome = ["seed", "state", "reason", "folder", *metrics, "steps"]
    assert list(found[0]) == ["flood", "flood.b", *outcome, *COSTS]
    first = next(row for row in found if row["folder"] == "15")
    assert (first["flood.b"], first["seed"], first["state"]) == ("0.14", "1", "ok")
    assert float(first["val/accuracy"]) == 0.9 and first["steps"] == "100"


def test_failed_and_running_runs_have_rows_without_metrics(flooded: Sweep):
    found = {row["state"]: row for row in rows(flooded)}
    assert found["failed"]["reason"] == "loss is not finite: nan <at> step 3"
    assert found["failed"]["flood.b"] == "0.5" and found["failed"]["test/accuracy"] == ""
    assert found["running"]["flood.b"] == "0.49" and found["running"]["train_seconds"] == ""


def test_equal_sweeps_have_equal_files_whatever_their_folders_are_called(tmp_path: Path):
    for name, seconds, order in (("a", 10.0, (1, 2, 3)), ("b", 99.0, (3, 2, 1))):
        for seed in order:
            folder = tmp_path / name / "here" / f"{seed}"
            told = {"seed": seed, "seconds": seconds, **done(0.1 * seed, 0.2)}
            run(folder, options={"optimizer.lr": 0.1 * seed}, **told)
    first, second = (rows(read([tmp_path / name])) for name in "ab")
    assert [row["train_seconds"] for row in first] == ["10.0"] * 3
    for row in (*first, *second):
        for column in COSTS:
            del row[column]
    assert first == second and [row["seed"] for row in first] == ["1", "2", "3"]


def test_what_a_run_does_not_have_is_empty_and_null_is_null(tmp_path: Path):
    run(tmp_path / "0", options={"model.at": None, "model.fast": True}, failure='a, "b"')
    run(tmp_path / "1", options={"model.at": "x", "model.fast": False, "model.b": 1})
    run(tmp_path / "2", options={"model.b": 2})
    found = {row["folder"]: row for row in rows(read([tmp_path]))}
    assert [found["0"][key] for key in ("model.at", "model.b", "model.fast")] == [
        "null",
        "",
        "true",
    ]
    assert [found["2"][key] for key in ("model.at", "model.b", "model.fast")] == ["", "2", ""]
    assert found["0"]["reason"] == 'a, "b"'
