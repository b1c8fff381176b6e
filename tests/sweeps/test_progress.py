"""A line for every run that ends."""

from pathlib import Path

import pytest

from lit_adv import failure, results
from lit_adv.reports.run import Run
from lit_adv.sweeps.jobs import Job
from lit_adv.sweeps.progress import Progress, line


def run(name: str, **metrics: float) -> Run:
    named = {key.replace("_", "/"): value for key, value in metrics.items()}
    return Run(Path(name), name, "ok", metrics=named, monitor="val/loss")


def test_the_line_says_what_came_out_the_best_and_the_time_that_is_left():
    ended = [run("b=0.1", val_loss=0.4, test_loss=0.5), run("b=0.2", val_loss=0.3, test_loss=0.6)]
    assert line(ended[0], ended, 12, 150) == (
        "[ 2/12] b=0.1: val/loss 0.4000 | best 0.3000 (b=0.2) | 2 min left"
    )
    assert line(ended[1], ended, 2, 0) == "[2/2] b=0.2: val/loss 0.3000 | best 0.3000 (b=0.2)"


def test_the_line_of_a_failed_run_says_why():
    failed = Run(Path("x"), "b=0.7", "failed", reason="flood.b=0.7: too high")
    assert line(failed, [failed], 3, 40) == "[1/3] b=0.7: flood.b=0.7: too high | 40 s left"


def test_every_run_is_told_once_when_it_ends_and_those_of_before_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    jobs = [Job((), tmp_path / name, f"seed={name}") for name in "012"]
    done = {"val": {"accuracy": 0.5}, "test": {"accuracy": 0.25}}
    for job in jobs:
        job.folder.mkdir()
    results.write(jobs[0].folder / "results.json", done)
    failure.write(jobs[2].folder, ValueError("of an earlier start: it runs again"))
    with Progress(3, jobs[:1], every=0.01) as progress:
        failure.clear(jobs[2].folder)
        progress.watch(jobs[1:])
        results.write(jobs[2].folder / "results.json", done)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("[2/3] seed=2: val/accuracy 0.5000 | best 0.5000 (seed=0) | ")
