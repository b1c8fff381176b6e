"""Gradient accordance over checkpoints and trainings, in logs, for monitors, and as a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from accordance.brute import Log, data, network, task, watch
from accordance.foreign import GoesOn, Loader, Plain, classes, cross_entropy, pairs, trained
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from testbed import METHODS, Recorder, Stream, close, sgd, without_lightnings_own_warnings

from lit_adv.accordance.readings import Reading
from lit_adv.callbacks.keeper import Keeper

near = pytest.approx
SERIES = {"cross", "same", "all", "within"}


class Save(L.Callback):
    """A checkpoint at each validation, of which there is one after every batch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}.ckpt")


def method(name: str = "finetune", **options: Any) -> Recorder:
    return METHODS[name](task(network(dropout=0.2)), sgd(lr=0.3, **options))


def run(module: L.LightningModule, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    settings = {
        "data": GoesOn(data()),
        "validation": Loader(data(3, seed=9)),
        "precision": "64-true",
        "val_check_interval": 1,
        "log_every_n_steps": 1,
    }
    return trained(module, *callbacks, **{**settings, **options})


def told(reading: Reading) -> dict[str, float]:
    """All but how long it took."""
    errors = {f"{name}, error": value for name, value in reading.errors.items()}
    return {"step": reading.step, "epoch": reading.epoch, **reading.values, **errors}


def agree(found: Sequence[Reading], expected: Sequence[Reading]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert told(one) == near(told(other), rel=1e-9, abs=1e-12, nan_ok=True)


KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "fixed": ("finetune", 1, {"sketch": 64}),
    "fixed, windows": ("finetune", 1, {"every_n_steps": 3, "against": "both", "batches": 2}),
    "fixed, accumulated": ("freelb", 2, {"every_n_steps": 2}),
    "moving": ("freelb", 1, {"theta": "moving", "batches": 4}),
    "moving, windows": ("finetune", 1, {"theta": "moving", "every_n_steps": 3, "sketch": 64}),
    "moving, accumulated": ("freelb", 2, {"theta": "moving", "every_n_steps": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_stops_within_a_window_goes_on_with_the_same_readings(
    kind: str, tmp_path: Path
):
    name, accumulate, options = KINDS[kind]
    whole, log = watch(**options), Log()
    module = method(name, accumulate_grad_batches=accumulate)
    run(module, whole, Save(tmp_path), logger=log)
    assert whole.readings and whole.readings[0].values.keys() >= {"cross", "all"}
    for stop in (3, 7, 9):  # within an effective batch; at an epoch's end; within a window
        file = tmp_path / f"{stop}.ckpt"
        rest, later = watch(**options), Log()
        run(method(name, accumulate_grad_batches=accumulate), rest, resume=file, logger=later)
        agree(rest.readings, whole.readings)
        close(torch.tensor(rest.validation), torch.tensor(whole.validation))
        first = torch.load(file, weights_only=True)["global_step"]
        for series in ("accordance/all", "accordance/all_epoch", "accordance/validation"):
            expected = {s: v for s, v in log.series(series).items() if s >= first}
            assert later.series(series) == near(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@pytest.mark.parametrize("theta", ["fixed", "moving"])
def test_so_does_that_of_a_module_of_somebody_elses(theta: str, tmp_path: Path):
    options = {"theta": theta, "losses": cross_entropy, "labels": classes, "every_n_steps": 4}
    save = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    ends: list[Sequence[Reading]] = []
    for resume in (None, tmp_path / "step=2.ckpt", tmp_path / "step=5.ckpt"):
        accordance = watch(**options)
        module = Plain(observe=accordance.observe)
        callbacks = [accordance, save] if resume is None else [accordance]
        checkpoints = {"enable_checkpointing": resume is None}
        trained(module, *callbacks, data=GoesOn(pairs()), epochs=1, resume=resume, **checkpoints)
        ends.append(accordance.readings)
    agree(ends[1], ends[0])
    agree(ends[2], ends[0])
    assert [reading.step for reading in ends[0]] == [4, 7]


class Interrupt(L.Callback):
    """Tells the training to end after the fifth batch, as a signal does."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        trainer._signal_connector.received_sigterm = trainer.global_step == 5


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@pytest.mark.parametrize("theta", ["fixed", "moving"])
def test_so_does_one_that_is_told_to_end(theta: str, tmp_path: Path):
    options = {"theta": theta, "every_n_steps": 3, "picture": "accordance.png"}
    whole, first, rest = (watch(**options) for _ in range(3))
    run(method(), whole, default_root_dir=tmp_path)
    keeper = Keeper(tmp_path / "kept", "end", every_n_train_steps=100)
    with pytest.raises(SIGTERMException):
        run(
            method(), first, keeper, Interrupt(), enable_checkpointing=True,
            default_root_dir=tmp_path,
        )  # fmt: skip
    run(method(), rest, resume=tmp_path / "kept" / "end.ckpt", default_root_dir=tmp_path)
    agree(rest.readings, whole.readings)


def test_a_checkpoint_holds_plain_values(tmp_path: Path):
    accordance = watch(theta="moving", every_n_steps=3, sketch=16)
    run(method(), accordance, Save(tmp_path))
    saved = torch.load(tmp_path / "11.ckpt", weights_only=True)
    state = saved["callbacks"]["GradientAccordance"]
    assert [reading["step"] for reading in state["readings"]] == [3, 6, 7, 10]
    assert state["readings"][1]["values"] == accordance.readings[1].values
    assert state["now"]["position"] == 1 and len(state["validation"]) == 11


def test_windows_of_other_processes_are_begun_anew(tmp_path: Path):
    accordance = watch(every_n_steps=3)
    run(method(), accordance, Save(tmp_path))
    file = tmp_path / "2.ckpt"
    saved = torch.load(file, weights_only=True)
    state = saved["callbacks"]["GradientAccordance"]
    state["now"]["batches"] *= 2  # as two processes would leave it
    torch.save(saved, file)
    rest = watch(every_n_steps=3)
    run(method(), rest, resume=file)
    assert [reading.step for reading in rest.readings] == [3, 6, 7, 10, 13, 14]
    assert rest.readings[0].values.keys() == {"within"}  # of one batch, the third


def test_what_is_judged_later_takes_no_reading_back(tmp_path: Path):
    accordance, module = watch(), method()
    trainer = run(module, accordance, Save(tmp_path))
    before = list(accordance.readings)
    assert len(before) == 2
    with without_lightnings_own_warnings():
        for judge in (trainer.validate, trainer.test):
            judge(module, Stream(data(2)), ckpt_path=tmp_path / "3.ckpt", verbose=False)
    assert accordance.readings == before


def test_a_second_training_starts_afresh():
    accordance = watch(every_n_steps=3, against="both")
    run(method(), accordance, max_steps=5)  # which ends within a window
    first = accordance.readings
    assert [reading.step for reading in first] == [3, 5]
    run(method("freelb"), accordance)
    alone = watch(every_n_steps=3, against="both")
    run(method("freelb"), alone)
    agree(accordance.readings, alone.readings)
    assert accordance.validation == alone.validation and len(first) == 2


# ---- logs and monitors ---------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_readings_are_in_the_row_of_the_last_step(every: int, accumulate: int, tmp_path: Path):
    accordance = watch(every_n_steps=3, against="both")
    logger = CSVLogger(tmp_path, name="", version="")
    run(
        method(accumulate_grad_batches=accumulate), accordance, logger=logger,
        log_every_n_steps=every, val_check_interval=1.0,
    )  # fmt: skip
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for series in [*SERIES, "validation", "seconds"]:
        logged = {int(r["step"]): float(r[f"accordance/{series}"]) for r in rows
                  if r[f"accordance/{series}"]}  # fmt: skip
        expected = {
            r.step - 1: r.seconds if series == "seconds" else r.values[series]
            for r in accordance.readings
            if series == "seconds" or series in r.values
        }
        assert logged == near(expected) and logged
    steps = -(-7 // accumulate)
    for series in SERIES:
        epochs = [int(r["step"]) for r in rows if r[f"accordance/{series}_epoch"]]
        assert epochs == [steps - 1, 2 * steps - 1]
    trained_at = [int(r["step"]) for r in rows if r.get("train/loss")]
    assert set(trained_at) == {step for step in range(2 * steps) if (step + 1) % every == 0}


class Monitors(L.Callback):
    """What monitors can see after each batch and validation."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.seen[trainer.global_step] = seen

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert "accordance/all_epoch" in trainer.callback_metrics


def test_monitors_see_the_last_reading_at_once(tmp_path: Path):
    accordance, monitors = watch(every_n_steps=3, against="both"), Monitors()
    save = ModelCheckpoint(
        tmp_path, "{step}", monitor="accordance/validation", mode="max", save_top_k=-1
    )
    stop = EarlyStopping("accordance/cross_epoch", patience=0, min_delta=1e9, check_finite=True)
    run(
        method(), accordance, monitors, stop, save, val_check_interval=1.0,
        enable_checkpointing=True, epochs=5,
    )  # fmt: skip
    steps = [reading.step for reading in accordance.readings]
    assert steps == [3, 6, 7, 10, 13, 14]  # stopped after the second epoch
    for step, seen in monitors.seen.items():
        if step >= 3:
            last = [reading for reading in accordance.readings if reading.step <= step][-1]
            assert {n: seen[f"accordance/{n}"] for n in last.values} == near(last.values, rel=1e-6)
    assert {file.name for file in tmp_path.iterdir()} == {"step=7.ckpt", "step=14.ckpt"}
    assert save.best_model_score == near(
        max(r.values["validation"] for r in accordance.readings if r.step % 7 == 0), rel=1e-6
    )


def test_listeners_are_told_and_log():
    accordance, log, heard = watch(every_n_steps=3), Log(), list[Reading]()

    def hear(reading: Reading) -> dict[str, float]:
        heard.append(reading)
        return {"told": float(len(heard))}

    accordance.listeners.append(hear)
    run(method(), accordance, logger=log, epochs=1)
    assert heard == accordance.readings
    assert log.series("told") == {2: 1.0, 5: 2.0, 6: 3.0}


# ---- the picture ---------------------------------------------------------------------------------


def test_a_picture_is_drawn_at_the_end(tmp_path: Path):
    accordance = watch(every_n_steps=3, against="both", picture="accordance.png")
    run(method(), accordance, default_root_dir=tmp_path / "run")
    assert (tmp_path / "run" / "accordance.png").read_bytes().startswith(b"\x89PNG")
    assert [step for step, _ in accordance.validation] == list(range(1, 15))


def test_no_picture_is_drawn_without_a_name_or_a_reading(tmp_path: Path):
    run(method(), watch(), default_root_dir=tmp_path)
    run(method(), watch(picture="a.png"), default_root_dir=tmp_path, max_steps=0)
    assert not list(tmp_path.iterdir())
