"""last.ckpt is of the last step, whenever is validated; and a run without validation ends well."""

from pathlib import Path

import pytest
import torch
from commandline import SMALL, refusal, train

ROWS = ["data.train_size=64", "data.batch_size=16"]
FEW = [option for option in SMALL if option.partition("=")[0] not in ("trainer.max_epochs",)]


@pytest.mark.parametrize(
    "options, steps",
    [
        (["trainer.max_epochs=1", "trainer.val_check_interval=0.5"], 4),
        (["trainer.max_epochs=3", "trainer.val_check_interval=3"], 12),
        (["trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2"], 20),
        (["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=5"], 8),
        pytest.param(
            ["trainer.max_epochs=2", "+trainer.limit_val_batches=0"],
            8,
            marks=pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
        ),
        (["trainer.max_epochs=2", "+trainer.limit_test_batches=0"], 8),
        (["trainer.max_steps=6", "trainer.max_epochs=-1"], 6),
    ],
)
def test_the_last_weights_are_kept(
    options: list[str], steps: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = train(monkeypatch, tmp_path, *FEW, *ROWS, *options)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == steps
    assert bool(found["val"]) == ("+trainer.limit_val_batches=0" not in options)
    assert bool(found["test"]) == ("+trainer.limit_test_batches=0" not in options)
    assert (tmp_path / "export" / "model.safetensors").exists()


@pytest.mark.parametrize("option", ["+trainer.fast_dev_run=true", "trainer.max_epochs=0"])
def test_a_run_that_keeps_nothing_is_tested_as_it_is(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = train(monkeypatch, tmp_path, *FEW, *ROWS, option)
    assert "accuracy" in found["test"]
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_plateau_of_accuracy_is_one_of_more_being_better(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    plateau = ["scheduler.name=reduce_lr_on_plateau", "scheduler.interval=epoch"]
    for metric, mode in (("val/loss", "min"), ("val/accuracy", "max"), ("train/loss", "min")):
        options = [*FEW, *ROWS, *plateau, f"scheduler.monitor={metric}", "trainer.max_epochs=2"]
        train(monkeypatch, tmp_path / metric, *options)
        last = torch.load(tmp_path / metric / "checkpoints" / "last.ckpt", weights_only=True)
        (schedule,) = last["lr_schedulers"]
        assert schedule["mode"] == mode and schedule["last_epoch"] == 2
    said = refusal(monkeypatch, capsys, tmp_path / "no", *FEW, *plateau, "scheduler.monitor=val/ac")
    assert said.startswith("scheduler.monitor=val/ac: no such metric; choose one of val/loss, ")
