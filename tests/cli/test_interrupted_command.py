"""`python train.py` that is told to end, or killed, and goes on from its last checkpoint."""

import subprocess
from pathlib import Path

import pytest
import torch
from commandline import SMALL, refusal, train
from forks import Fork
from testbed import same
from torch import Tensor

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
OPTIONS = [*SMALL, "model.dropout=0.1", "model.drop_token=0.2", "proximal=mbpp", "mask=child_f"]
OPTIONS += ["data.train_size=112"]


def interrupted(
    folder: Path, signal: str, batches: int, *overrides: str
) -> subprocess.CompletedProcess[str]:
    """A run that gets this signal after so many batches."""
    return started(folder, signal, batches, *overrides).wait()


def started(
    folder: Path,
    signal: str,
    batches: int,
    *overrides: str,
    rank: int = 0,
    environment: dict[str, str] | None = None,
) -> Fork:
    """The same, which has not ended yet.

    Args:
        folder: of the run.
        signal: its name.
        batches: so many; less than one = it gets none.
        overrides: of the command line.
        rank: which of several processes it is.
        environment: what tells it so.
    """
    conf = folder.parent / "conf" / "callbacks"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "interrupt.yaml").write_text(
        f"interrupt: {{_target_: interruptions.Interrupt, name: {signal}, batches: {batches}}}\n"
    )
    command = ["train.py", "--config-dir", str(conf.parent), *overrides]
    command += ["callbacks=interrupt", f"hydra.run.dir={folder}", f"data.cache={folder.parent}"]
    return Fork(
        "lit_adv.cli.train.main",
        log=folder.with_name(f"{folder.name}-{rank}"),
        argv=command,
        cwd=ROOT,
        nursery=rank,
        environment={"PYTHONPATH": str(HERE), **(environment or {})},
    )


def end(folder: Path) -> dict[str, Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {**checkpoint["state_dict"], **checkpoint["lit_adv"]["proximal"].get("weights", {})}


@pytest.mark.parametrize(
    "method, windows, batches",
    [("tavat", 1, 3), ("freelb", 2, 3), ("smart", 3, 9), ("free_at", 1, 7)],
)
def test_told_to_end_it_writes_a_checkpoint_and_resumes_from_it(
    method: str, windows: int, batches: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Within an epoch of seven batches, within a window of micro-batches, at an epoch's end."""
    options = [*OPTIONS, f"method={method}", f"trainer.accumulate_grad_batches={windows}"]
    ended = interrupted(tmp_path / "half", "SIGTERM", batches, *options)
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    step = batches // windows if batches < 7 else 7 // windows + (batches - 7) // windows
    step += batches >= 7 and 7 % windows > 0
    assert ended.returncode == 143, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        f"stopped by SIGTERM at step {step}; to go on: ckpt_path={last}"
    )
    assert not (tmp_path / "half" / "results.json").exists()

    whole = train(monkeypatch, tmp_path / "whole", *options)
    rest = train(monkeypatch, tmp_path / "rest", *options, f"ckpt_path={last}")
    same(end(tmp_path / "rest"), end(tmp_path / "whole"))
    assert rest["train"]["steps"] == whole["train"]["steps"] == 2 * -(-7 // windows)


def test_killed_it_resumes_from_the_checkpoint_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    options = [*OPTIONS, "method=freelb", "checkpoint.every_n_train_steps=2"]
    killed = interrupted(tmp_path / "half", "SIGKILL", 5, *options)
    assert killed.returncode == -9
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4

    train(monkeypatch, tmp_path / "whole", *options)
    train(monkeypatch, tmp_path / "rest", *options, f"ckpt_path={last}")
    same(end(tmp_path / "rest"), end(tmp_path / "whole"))


def test_a_checkpoint_that_is_not_whole_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    options = [*OPTIONS, "method=freelb", "checkpoint.every_n_train_steps=1"]
    assert interrupted(tmp_path / "half", "SIGKILL", 2, *options).returncode == -9
    whole = (tmp_path / "half" / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    options.append(f"ckpt_path={tmp_path}/cut.ckpt")
    line = refusal(monkeypatch, capsys, tmp_path / "rest", *options)
    assert line.startswith(f"ckpt_path={tmp_path}/cut.ckpt: not a whole checkpoint: ")
