"""A training that goes on inside an epoch sees the batches that the interrupted one had left."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.utilities import CombinedLoader
from testbed import without_lightnings_own_warnings

from lit_adv.data.reviews import Reviews
from lit_adv.data.training_loader import TrainingLoader
from lit_adv.models.tiny import build

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

ROWS, SIZE, BATCHES, EPOCHS = 22, 4, 6, 3

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def reviews(folder: Path, unlabelled: int | None = None, **options: Any) -> Reviews:
    """The embedded data, with so many texts beside them."""
    path = folder / "texts.jsonl"
    texts = [{"text": "good " * (1 + row % 9) + f"no {row}"} for row in range(unlabelled or 0)]
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    sizes = {"train_size": ROWS, "validation_size": 3, "test_size": 3, "eval_batch_size": 2}
    beside = None if unlabelled is None else str(path)
    options = {**sizes, "batch_size": SIZE, "cache": str(folder), "unlabelled": beside, **options}
    data = Reviews(**options)
    data.tokenise(build(data.splits, width=8, heads=2, max_tokens=64).tokenizer, order_seed=7)
    return data


class Watching(L.LightningModule):
    """Trains nothing that matters; remembers the epoch, number and rows of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(1, 1)
        self.automatic_optimization = False
        self.seen: list[tuple[int, int, list[int], list[int]]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        beside = batch["unlabelled"]["index"].tolist() if "unlabelled" in batch else []
        self.seen.append((self.current_epoch, batch_idx, batch["index"].tolist(), beside))
        self.manual_backward(self.weight(torch.ones(1, 1)).sum())
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


class Save(L.Callback):
    """Writes one checkpoint in a hook, after so many batches."""

    def __init__(self, hook: str, batches: int, path: Path) -> None:
        def save(trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == batches and not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def fit(data: Reviews, *callbacks: L.Callback, resume: Path | None = None, **options: Any):
    """Train, and give back what was seen."""
    module = Watching()
    with without_lightnings_own_warnings():
        trainer = L.Trainer(**{**QUIET, "max_epochs": EPOCHS, **options}, callbacks=list(callbacks))
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module.seen


def check(
    folder: Path,
    hook: str,
    batches: int,
    *,
    edit: Callable[[dict[str, Any]], int] = lambda loops: 0,
    data: Mapping[str, Any] = MappingProxyType({}),
    trainer: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Interrupt a training, and see whether the rest of it is the rest of the whole one."""
    path = folder / "interrupted.ckpt"
    whole = fit(reviews(folder, **data), Save(hook, batches, path), **trainer)
    assert path.exists() and len(whole) == BATCHES * EPOCHS
    checkpoint = torch.load(path, weights_only=True)
    batches -= edit(checkpoint["loops"]["fit_loop"])
    torch.save(checkpoint, path)
    assert fit(reviews(folder, **data), resume=path, **trainer) == whole[batches:]


# ---- where the checkpoint was written ------------------------------------------------------------


@pytest.mark.parametrize("batches, workers", [(2, 0), (6, 0), (7, 0), (12, 0), (2, 2), (6, 2)])
def test_after_a_batch(batches: int, workers: int, tmp_path: Path):
    check(tmp_path, "on_train_batch_end", batches, data={"num_workers": workers})


@pytest.mark.parametrize("batches, workers", [(4, 0), (6, 0), (8, 0), (4, 2), (6, 2)])
def test_at_a_validation_inside_an_epoch_or_at_its_end(batches: int, workers: int, tmp_path: Path):
    within = {"val_check_interval": 2}
    check(tmp_path, "on_validation_end", batches, data={"num_workers": workers}, trainer=within)


@pytest.mark.parametrize("batches", [4, 8])
def test_just_before_a_validation(batches: int, tmp_path: Path):
    check(tmp_path, "on_train_batch_end", batches, trainer={"val_check_interval": 2})


@pytest.mark.parametrize("workers", [0, 2])
def test_at_the_end_of_an_epoch(workers: int, tmp_path: Path):
    check(tmp_path, "on_train_epoch_end", 6, data={"num_workers": workers})


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"])
@pytest.mark.parametrize("unlabelled", [None, 7])
def test_when_steps_are_counted_instead_of_epochs(
    hook: str, unlabelled: int | None, tmp_path: Path
):
    steps = {"max_steps": BATCHES * EPOCHS, "max_epochs": -1}
    check(tmp_path, hook, 6, data={"unlabelled": unlabelled}, trainer=steps)


def test_at_the_end_of_an_epoch_by_steps_without_a_validation(tmp_path: Path):
    options = {"max_steps": BATCHES * EPOCHS, "max_epochs": -1, "limit_val_batches": 0}
    check(tmp_path, "on_train_epoch_end", 6, data={"unlabelled": 7}, trainer=options)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end"])
def test_where_counters_have_been_set_back_to_the_beginning_of_a_window(hook: str, tmp_path: Path):
    def two_back(loops: dict[str, Any]) -> int:
        progress = loops["epoch_loop.batch_progress"]
        for part in (progress["total"], progress["current"]):
            part.update(dict.fromkeys(part, part["processed"] - 2))
        return 2

    check(tmp_path, hook, 9, edit=two_back, trainer={"val_check_interval": 3})


# ---- beside texts without labels -----------------------------------------------------------------


@pytest.mark.parametrize("unlabelled, workers", [(1, 0), (7, 0), (24, 0), (60, 0), (7, 2), (60, 2)])
def test_with_fewer_or_more_texts_without_labels(unlabelled: int, workers: int, tmp_path: Path):
    data = {"unlabelled": unlabelled, "num_workers": workers}
    check(tmp_path, "on_train_batch_end", 9, data=data)


# ---- who does not go on --------------------------------------------------------------------------


class Reading(L.Callback):
    """Goes through the training batches by itself, before the first step and in every epoch."""

    def __init__(self, data: Reviews) -> None:
        self.data = data
        self.read: list[list[int]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read(trainer.train_dataloader)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._read(trainer.train_dataloader)
        self._read(self.data.train_dataloader())

    def _read(self, loader: Any) -> None:
        self.read.append(sorted(row for batch in loader for row in batch["index"].tolist()))


def test_others_get_all_batches_and_disturb_nobody(tmp_path: Path):
    path = tmp_path / "interrupted.ckpt"
    whole = fit(reviews(tmp_path), Save("on_train_batch_end", 8, path))
    data = reviews(tmp_path)
    reading = Reading(data)
    assert fit(data, reading, resume=path) == whole[8:]
    assert reading.read == [list(range(ROWS))] * 5


def test_after_a_training_the_epoch_is_the_one_that_is_told(tmp_path: Path):
    data = reviews(tmp_path)
    seen = fit(data)
    loader = data.train_dataloader()
    assert isinstance(loader, TrainingLoader)
    for epoch in (0, 1):
        _set_sampler_epoch(loader, epoch)
        rows = [batch["index"].tolist() for batch in loader]
        assert rows == [rows for at, _, rows, _ in seen if at == epoch]


class Stopping(Watching):
    """Ends its first training in the middle of an epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.trainer.should_stop = len(self.seen) == 2


def test_a_trainer_that_fits_again_begins_its_epoch_again(tmp_path: Path):
    data, module = reviews(tmp_path), Stopping()
    with without_lightnings_own_warnings():
        trainer = L.Trainer(max_epochs=2, **QUIET)
        trainer.fit(module, datamodule=data)
        assert len(module.seen) == 2
        trainer.fit(module, datamodule=data)
    again = [row for _, _, batch, _ in module.seen[2 : 2 + BATCHES] for row in batch]
    assert sorted(again) == list(range(ROWS))


def test_batches_of_another_size_cannot_go_on_inside_an_epoch(tmp_path: Path):
    path = tmp_path / "interrupted.ckpt"
    fit(reviews(tmp_path), Save("on_train_batch_end", 8, path))
    with pytest.raises(ValueError) as refused:
        fit(reviews(tmp_path, batch_size=5), resume=path)
    assert str(refused.value) == (
        "ckpt_path: its epoch is not over, and goes on with rows 22, batch_size 4, seed 7, not "
        "with rows 22, batch_size 5, seed 7; set these, or take a checkpoint from the end of an "
        "epoch"
    )


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"])
def test_batches_of_another_size_can_go_on_between_epochs(hook: str, tmp_path: Path):
    path = tmp_path / "interrupted.ckpt"
    fit(reviews(tmp_path), Save(hook, 12, path))
    seen = fit(reviews(tmp_path, batch_size=11), resume=path)
    assert [(epoch, number, len(rows)) for epoch, number, rows, _ in seen] == [
        (2, 0, 11),
        (2, 1, 11),
    ]


def test_loaders_made_for_no_trainer_promise_nothing(tmp_path: Path):
    data = reviews(tmp_path, 7)
    with without_lightnings_own_warnings():
        loader = data.train_dataloader()
    assert isinstance(loader, CombinedLoader)
    assert not any(isinstance(part, TrainingLoader) for part in loader.flattened)
    assert not isinstance(data.some([1, 2], shuffled=True), TrainingLoader)


# ---- random streams ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_no_loader_draws_from_a_random_stream(workers: int, tmp_path: Path):
    def streams() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    data = reviews(tmp_path, 7, num_workers=workers)
    before = streams()
    with without_lightnings_own_warnings():
        for loader in (
            data.train_dataloader(),
            data.val_dataloader(),
            data.test_dataloader(),
            data.some([1, 2, 5], shuffled=True),
            data.some([1, 2, 5], shuffled=False),
        ):
            assert list(loader)
    assert streams() == before


class Streams(L.Callback):
    """PyTorch's random stream, whenever a batch has come."""

    def __init__(self) -> None:
        self.states: list[list[int]] = []

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self.states.append(torch.get_rng_state().tolist())


def test_no_training_does_by_validating_or_resuming(tmp_path: Path):
    path, streams, resumed = tmp_path / "interrupted.ckpt", Streams(), Streams()
    save = Save("on_train_batch_end", 8, path)
    fit(reviews(tmp_path, 7), streams, save, val_check_interval=2)
    fit(reviews(tmp_path, 7), resumed, resume=path, val_check_interval=2)
    for states in (streams.states, resumed.states):
        assert states == [states[0]] * len(states) and len(states) > BATCHES
