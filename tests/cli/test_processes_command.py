"""`python train.py trainer=ddp_cpu`: several processes, from the command line to the report."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from cli.test_interrupted_command import OPTIONS, end, interrupted
from commandline import SMALL
from testbed import same

SHARED = ["trainer=ddp_cpu", "data.batch_size=8"]


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A run that nobody interrupts."""
    done = interrupted(folder, "SIGTERM", -1, *overrides)
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_train_and_measure_what_one_does(tmp_path: Path):
    options = [*SMALL, "method=smart", "flood=fixed", "flood.b=0.69", "data.train_size=50"]
    options += ["data.validation_size=17", "data.test_size=47"]  # odd: one process has more
    said = run(tmp_path / "two", *options, *SHARED).stdout
    run(tmp_path / "one", *options)
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two"))
    assert two["train"]["steps"] == one["train"]["steps"] == 8
    for split in ("val", "test"):
        assert two[split] == pytest.approx(one[split], rel=1e-4, abs=1e-4)
    torch.testing.assert_close(end(tmp_path / "two"), end(tmp_path / "one"), rtol=1e-5, atol=1e-5)
    assert said.count("results in") == 1 and "GLOBAL_RANK" not in said


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_end_together_and_resume_to_the_last_bit(sharded: bool, tmp_path: Path):
    options = [*OPTIONS, "method=freelb", "trainer.accumulate_grad_batches=2", *SHARED]
    if sharded:  # which masks are not made for
        options += ["trainer=fsdp2", "trainer.precision=32-true", "mask=none"]
    ended = interrupted(tmp_path / "half", "SIGTERM", 9, *options)
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    assert ended.returncode == 143, ended.stderr
    assert ended.stderr.count(f"to go on: ckpt_path={last}") == 1
    run(tmp_path / "whole", *options)
    run(tmp_path / "rest", *options, f"ckpt_path={last}")
    same(end(tmp_path / "rest"), end(tmp_path / "whole"))


def test_a_sweep_runs_its_jobs_one_after_the_other_in_two_processes_each(tmp_path: Path):
    options = [
        *SMALL,
        *SHARED,
        "trainer.max_epochs=1",
        "method=fgm",
        "hydra.mode=MULTIRUN",
        "seed=0,1",
    ]
    run(tmp_path / "x", *options, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    losses = [
        json.loads((tmp_path / "sweep" / job / "results.json").read_text())["test"]["loss"]
        for job in ("0", "1")
    ]
    assert losses[0] != losses[1]


def test_what_one_process_cannot_know_is_refused(tmp_path: Path):
    options = [*SMALL, *SHARED, "update=gradient_penalty", "update.form=exact"]
    refused = interrupted(tmp_path / "run", "SIGTERM", -1, *options)
    assert refused.returncode == 1
    assert "update.form=exact: the norm would be that of one of 2 processes' gradients" in (
        refused.stderr
    )
