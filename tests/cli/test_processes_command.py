"""`python train.py trainer=ddp_cpu`: several processes, from the command line to the report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forks
import pytest
import torch
from cli.test_interrupted_command import OPTIONS, ROOT, end, interrupted, started
from commandline import SMALL, train
from distributed.launch import environments
from testbed import same

SHARED = ["trainer=ddp_cpu", "data.batch_size=8"]
NEVER = ("SIGTERM", -1)


def together(
    folder: Path, signal: str, batches: int, *overrides: str
) -> list[subprocess.CompletedProcess[str]]:
    """Two processes, of which neither starts the other; the first gets this signal."""
    both = [
        started(folder, signal, batches, *overrides, rank=rank, environment=environment)
        for rank, environment in enumerate(environments(2))
    ]
    return forks.ends(both)


def run(folder: Path, *overrides: str) -> None:
    """The same, which nobody interrupts."""
    ended = together(folder, *NEVER, *overrides)
    assert not any(process.returncode for process in ended), ended
    assert "".join(process.stdout for process in ended).count("results in") == 1


def test_each_job_of_a_sweep_is_in_two_processes_what_it_is_in_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """They run one after the other, and each starts a second process."""
    options = [*SMALL, "method=smart", "flood=fixed", "flood.b=0.69", "data.train_size=50"]
    options += ["data.validation_size=17", "data.test_size=47"]  # odd: one process has more
    options += ["optimizer=sgd", "optimizer.lr=0.1"]  # AdamW makes steps of rounding near zero
    sweep = [*SHARED, "hydra.mode=MULTIRUN", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep"]
    command = [sys.executable, "train.py", *options, *sweep, f"data.cache={tmp_path}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results in") == 2 and "GLOBAL_RANK" not in done.stdout
    ones, twos = [], []
    for seed in ("0", "1"):
        ones.append(train(monkeypatch, tmp_path / seed, *options, f"seed={seed}"))
        folder = tmp_path / "sweep" / seed
        twos.append(json.loads((folder / "results.json").read_text()))
        torch.testing.assert_close(end(folder), end(tmp_path / seed), rtol=1e-5, atol=1e-5)
    for one, two in zip(ones, twos, strict=True):
        assert two["train"]["steps"] == one["train"]["steps"] == 8
        for split in ("val", "test"):
            assert two[split] == pytest.approx(one[split], rel=1e-4, abs=1e-4)
    assert twos[0]["test"]["loss"] != twos[1]["test"]["loss"]


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_end_together_and_resume_to_the_last_bit(sharded: bool, tmp_path: Path):
    """Whether the first has started the second or somebody else has."""
    options = [*OPTIONS, "method=freelb", "trainer.accumulate_grad_batches=2", *SHARED]
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    if sharded:  # which masks are not made for
        options += ["trainer=fsdp2", "trainer.precision=32-true", "mask=none"]
        ended = together(tmp_path / "half", "SIGTERM", 9, *options)
        whole = interrupted(tmp_path / "whole", *NEVER, *options)
        assert whole.returncode == 0, whole.stderr
        assert whole.stdout.count("results in") == 1 and "GLOBAL_RANK" not in whole.stdout
    else:
        ended = [interrupted(tmp_path / "half", "SIGTERM", 9, *options)]
        run(tmp_path / "whole", *options)
    said = "".join(process.stderr for process in ended)
    assert [process.returncode for process in ended] == [143, 0][: len(ended)], said
    assert said.count(f"to go on: ckpt_path={last}") == 1
    run(tmp_path / "rest", *options, f"ckpt_path={last}")
    same(end(tmp_path / "rest"), end(tmp_path / "whole"))


def test_what_one_process_cannot_know_is_refused(tmp_path: Path):
    options = [*SMALL, *SHARED, "update=gradient_penalty", "update.form=exact"]
    refused = interrupted(tmp_path / "run", *NEVER, *options)
    assert refused.returncode == 1
    assert "update.form=exact: the norm would be that of one of 2 processes' gradients" in (
        refused.stderr
    )
