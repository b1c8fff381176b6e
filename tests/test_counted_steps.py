"""One counted step per effective batch, however often a method or an update steps or looks."""

import csv
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from testbed import FREE, METHODS, Recorder, Stream, batches, bert, classify, sgd
from testbed import without_lightnings_own_warnings as quiet

from lit_adv.descent import Descent, Schedule
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.sam import SAM

EPOCHS, BATCHES = 3, 5

Build = Callable[..., Recorder]


def method(name: str, **parts: Any) -> Build:
    def build(windows: int = 1) -> Recorder:
        schedule = Schedule(name="linear", warmup=0.2)
        options = {name: part() for name, part in parts.items()}
        descent: Descent = sgd(schedule=schedule, accumulate_grad_batches=windows, **options)
        return (FREE if name == "free_at" else METHODS[name])(classify(bert()), descent)

    return build


MANY: dict[str, Build] = {
    "finetune": method("finetune"),
    "freelb": method("freelb"),
    "free_at": method("free_at"),
    "backstitch": method("fgm", update=Backstitch),
    "sam": method("fgm", update=SAM),
    "awp": method("pgd_a", update=AWP),
}

WINDOWS = [
    (name, windows) for name in MANY for windows in (1, 2) if (name, windows) != ("free_at", 2)
]

every_mix = pytest.mark.parametrize("name, windows", WINDOWS)


def train(
    module: Recorder, folder: Path, *callbacks: Callback, validate: bool = False, **options: Any
) -> L.Trainer:
    settings = {"max_epochs": EPOCHS, "log_every_n_steps": 1, **options}
    logger = CSVLogger(folder, name="", version="")
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu", precision="64-true", logger=logger, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, callbacks=[*callbacks], **settings,
        )  # fmt: skip
        trainer.fit(module, Stream(batches(BATCHES)), Stream(batches()) if validate else None)
    return trainer


def steps(windows: int) -> int:
    return EPOCHS * -(-BATCHES // windows)


def kept(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.ckpt"))


@every_mix
def test_steps_are_counted_once_and_estimated_rightly(name: str, windows: int, tmp_path: Path):
    estimates = []

    class Ask(Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            estimates.append(trainer.estimated_stepping_batches)

    trainer = train(MANY[name](windows), tmp_path, Ask())
    assert estimates == [steps(windows)]
    assert trainer.global_step == steps(windows)


@every_mix
def test_training_ends_at_max_steps(name: str, windows: int, tmp_path: Path):
    module = MANY[name](windows)
    trainer = train(module, tmp_path, max_epochs=-1, max_steps=4)
    assert trainer.global_step == module.total_steps == 4


@every_mix
def test_checkpoints_by_steps_come_when_they_are_due(name: str, windows: int, tmp_path: Path):
    keeper = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    train(MANY[name](windows), tmp_path, keeper)
    expected = [f"step={step}" for step in range(2, steps(windows) + 1, 2)]
    assert kept(tmp_path) == sorted(expected)


@every_mix
def test_checkpoints_by_time_come_at_all(name: str, windows: int, tmp_path: Path):
    """Of no time at all: at every optimizer step, whatever micro-batch it is noticed at."""
    keeper = ModelCheckpoint(
        tmp_path, "{step}", train_time_interval=timedelta(seconds=0), save_top_k=-1
    )
    train(MANY[name](windows), tmp_path, keeper)
    assert kept(tmp_path) == sorted(f"step={step}" for step in range(1, steps(windows) + 1))


@pytest.mark.parametrize("windows", [1, 2])
def test_checkpoints_by_time_wait_for_their_time(windows: int, tmp_path: Path):
    keeper = ModelCheckpoint(tmp_path, "{step}", train_time_interval=timedelta(days=1))
    train(MANY["freelb"](windows), tmp_path, keeper)
    assert kept(tmp_path) == []


@every_mix
def test_the_loggers_axis_counts_steps_and_the_rate_follows_them(
    name: str, windows: int, tmp_path: Path
):
    train(MANY[name](windows), tmp_path, LearningRateMonitor("step"), validate=True)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [int(row["step"]) for row in rows if row.get("train/loss")]
    total, per_epoch = steps(windows), steps(windows) // EPOCHS
    assert sorted(set(losses)) == list(range(total))
    validated = [int(row["step"]) for row in rows if row.get("val/loss")]
    assert validated == [per_epoch * (epoch + 1) - 1 for epoch in range(EPOCHS)]

    column = next(key for key in rows[0] if key.startswith("lr-"))
    rates = {int(row["step"]): float(row[column]) for row in rows if row.get(column)}
    warm = round(0.2 * total)
    expected = [s / warm if s < warm else (total - s) / (total - warm) for s in range(total)]
    assert [rates[step] / 0.1 for step in sorted(rates)] == pytest.approx(expected)


@pytest.mark.parametrize("windows", [1, 2, 4])
def test_an_incomplete_window_at_an_epochs_end_is_stepped_also_without_a_length(
    windows: int, tmp_path: Path
):
    class Unsized:
        def __iter__(self) -> Any:
            return iter(batches(BATCHES))

    sized = MANY["freelb"](windows)
    train(sized, tmp_path, max_steps=steps(windows))
    unsized = MANY["freelb"](windows)
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, max_steps=steps(windows),
        )  # fmt: skip
        trainer.fit(unsized, Unsized())
    assert trainer.global_step == steps(windows)
    assert trainer.current_epoch == EPOCHS
    for one, other in zip(sized.parameters(), unsized.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_trainer_is_given_back_as_it_was(accumulate: int, tmp_path: Path):
    """Lightning refuses a Trainer that accumulates by itself, also at its next fit."""
    module = MANY["finetune"](accumulate)
    trainer = train(module, tmp_path, max_epochs=1, enable_checkpointing=False)
    assert trainer.accumulate_grad_batches == 1
    trainer.fit_loop.max_epochs = 2
    with quiet():
        trainer.fit(MANY["finetune"](accumulate), Stream(batches(BATCHES)))
