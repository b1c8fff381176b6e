"""A sweep that ends at any moment goes on where it was, to the same end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeping import figures, finish, sweep

from lit_adv.reports.reading import as_json

ROOT = Path(__file__).parents[2]
POINTS = ["flood=fixed", "flood.b=0.1,0.7", "seed=0,1", "trainer.max_epochs=4"]
FAILED = (
    "flood.b=0.7: not below 0.693, the loss of a predictor that ignores its input, so there would "
    "be nothing to learn; choose a lower level"
)


def test_a_sweep_killed_while_its_workers_are_at_work_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="lit-adv[sweeps]")
    command = sweep(tmp_path / "killed", *POINTS)
    at_once = [*command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options = {"cwd": ROOT, "env": env, "start_new_session": True}
    with subprocess.Popen(
        [sys.executable, *at_once], stderr=subprocess.PIPE, text=True, **options
    ) as process:
        first = tmp_path / "killed" / "0" / "results.json"
        assert process.stderr is not None
        said = [process.stderr.readline()]
        while process.poll() is None and not first.exists():
            time.sleep(0.02)  # of another process
        os.killpg(process.pid, signal.SIGKILL)
    assert said[0].startswith(f"sweep of 4 runs in {tmp_path / 'killed'}, 0 of them done")
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    assert finish(monkeypatch, *command) == 1
    said = capsys.readouterr().err
    assert f"flood.b=0.7 seed=1: {FAILED} | best " in said and "2 runs failed" in said
    assert first.stat().st_mtime_ns == before
    for run in ("2", "3"):
        assert as_json(tmp_path / "killed" / run / "failure.json")["reason"] == FAILED

    assert finish(monkeypatch, *sweep(tmp_path / "whole", *POINTS)) == 1
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    assert [row["state"] for row in figures(tmp_path / "whole")] == ["ok", "ok", "failed", "failed"]


def test_a_run_that_was_at_work_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    conf = tmp_path / "conf" / "callbacks"
    conf.mkdir(parents=True)
    # Every run is told to end in its third of four epochs; the second time it has no more to say.
    (conf / "interrupt.yaml").write_text(
        "interrupt: {_target_: cli.interruptions.Interrupt, name: SIGTERM, batches: 8}\n"
    )
    points = [f"hydra.searchpath=[file://{conf.parent}]", "callbacks=interrupt"]
    points += ["trainer.max_epochs=4"]
    command = sweep(tmp_path / "stopped", *points, "seed=0,1")
    assert [finish(monkeypatch, *command) for _ in range(3)] == [143, 143, 0]
    whole = sweep(tmp_path / "whole", *points, "callbacks.interrupt.batches=-1", "seed=0,1")
    assert finish(monkeypatch, *whole) == 0
    for run in ("0", "1"):
        ended, straight = (tmp_path / name / run for name in ("stopped", "whole"))
        assert (ended / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
        one, other = (as_json(folder / "results.json") for folder in (ended, straight))
        assert one["test"] == other["test"] and one["train"]["steps"] == other["train"]["steps"]


def test_what_is_finished_is_not_run_again_and_what_is_new_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    options = ["trainer.max_epochs=1", "seed=1"]
    assert finish(monkeypatch, *sweep(tmp_path / "sweep", *options)) == 0
    first = (tmp_path / "sweep" / "0" / "results.json").stat().st_mtime_ns
    capsys.readouterr()
    assert finish(monkeypatch, *sweep(tmp_path / "sweep", *options, "seed=0,1")) == 0
    assert "sweep of 2 runs in" in (said := capsys.readouterr().err) and "1 of them done" in said
    assert (tmp_path / "sweep" / "0" / "results.json").stat().st_mtime_ns == first
    assert [row["seed"] for row in figures(tmp_path / "sweep")] == ["0", "1"]
