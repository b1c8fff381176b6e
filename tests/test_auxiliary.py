"""Held-out losses by cross-validation: nobody judges what it trained on, nothing is left behind."""

import random
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from testbed import same, without_lightnings_own_warnings
from torch import Tensor

from lit_adv import auxiliary
from lit_adv.data.reviews import Reviews
from lit_adv.descent import Descent, adamw
from lit_adv.flood.ada import Ada
from lit_adv.methods.finetune import FineTune
from lit_adv.models.tiny import build
from lit_adv.tasks.task import Batch

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

ROWS, FOLDS = 23, 3


class Watched(FineTune):
    """Remembers what it trained on."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # pyright: ignore[reportArgumentType]
        self.rows: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.rows += batch["index"].tolist()
        super().training_step(batch, batch_idx)


class Unplugged(Exception):
    """As if somebody had pulled the plug."""


class Models:
    """Auxiliary models, in the order they are asked for, and no more than so many."""

    def __init__(self, data: Reviews, limit: int = FOLDS) -> None:
        self.data, self.limit = data, limit
        self.made: list[Watched] = []

    def __call__(self) -> tuple[FineTune, L.Trainer]:
        if len(self.made) == self.limit:
            raise Unplugged
        model = build(self.data.splits, width=8, heads=2, dropout=0.1, max_tokens=64)
        descent = Descent(optimizer=partial(adamw, lr=0.01))
        self.made.append(Watched(model.task(self.data.splits), descent))
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        return self.made[-1], trainer


@pytest.fixture
def data(tmp_path: Path) -> Reviews:
    sizes = dict.fromkeys(("validation_size", "test_size"), 2)
    cache = str(tmp_path / "cache")
    made = Reviews(train_size=ROWS, batch_size=5, eval_batch_size=3, cache=cache, **sizes)
    made.tokenise(build(made.splits, width=8, heads=2, max_tokens=64).tokenizer)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


def losses(models: Models, folder: Path, seed: int = 5, folds: int = FOLDS) -> Tensor:
    """The auxiliary losses, which are the levels without correction."""
    flood = Ada(folds=folds, gamma=0.0)
    with without_lightnings_own_warnings():
        auxiliary.prepare(flood, models.data, DictConfig({"seed": seed}), folder, models)
    assert flood.levels is not None
    return flood.levels


# ---- cross-validation ----------------------------------------------------------------------------


def test_every_loss_is_that_of_a_model_that_never_saw_the_example(data: Reviews, folder: Path):
    models = Models(data)
    found = losses(models, folder)
    assert found.shape == (ROWS,)
    held_out = [sorted(set(range(ROWS)) - set(model.rows)) for model in models.made]
    assert sorted(sum(held_out, [])) == list(range(ROWS))  # each by one model, all by some
    assert {len(rows) for rows in held_out} == {ROWS // FOLDS, ROWS // FOLDS + 1}
    for model, rows in zip(models.made, held_out, strict=True):
        seen = sorted(set(range(ROWS)) - set(rows))
        assert sorted(model.rows) == sorted(2 * seen)  # every other example once per epoch
        for row in rows:
            (batch,) = data.some([row], shuffled=False)
            assert batch["index"].tolist() == [row]
            assert batch["labels"].tolist() == [data.splits.train.labels[row]]
            with torch.no_grad():
                alone = model.task.eval().losses(model.task(batch), batch)
            torch.testing.assert_close(found[row], alone[0], rtol=1e-4, atol=1e-6)
    assert found.unique().numel() > ROWS // 2


def test_random_streams_stand_where_they_stood(data: Reviews, folder: Path):
    def streams() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    torch.manual_seed(11)
    before = streams()
    losses(Models(data), folder)
    assert streams() == before and torch.initial_seed() == 11


def test_an_interrupted_run_goes_on_with_the_models_that_are_left(
    data: Reviews, folder: Path, tmp_path: Path
):
    (tmp_path / "whole").mkdir()
    whole = losses(Models(data), tmp_path / "whole")
    with pytest.raises(Unplugged):
        losses(Models(data, limit=1), folder)
    models = Models(data)
    same(losses(models, folder), whole)
    assert len(models.made) == FOLDS - 1
    assert [path.name for path in folder.iterdir()] == [auxiliary.FILE]
    same(losses(Models(data, limit=0), folder), whole)  # nor any, once all are known


@pytest.mark.parametrize("other", [{"seed": 6}, {"folds": 4}])
def test_what_another_run_left_in_the_folder_is_not_taken(
    other: dict[str, int], data: Reviews, folder: Path, tmp_path: Path
):
    with pytest.raises(Unplugged):
        losses(Models(data, limit=1), folder)
    (tmp_path / "whole").mkdir()
    whole = losses(Models(data, limit=4), tmp_path / "whole", **other)
    same(losses(Models(data, limit=4), folder, **other), whole)


# ---- files ---------------------------------------------------------------------------------------


def adopted(data: Reviews, path: Path) -> Tensor:
    """Levels without correction from a file; nobody may train."""
    flood = Ada(gamma=0.0, losses=str(path))
    auxiliary.prepare(flood, data, DictConfig({"seed": 9}), path.parent, Models(data, limit=0))
    assert flood.levels is not None
    return flood.levels


def test_an_earlier_runs_file_takes_the_place_of_the_models(data: Reviews, folder: Path):
    same(losses(Models(data), folder), adopted(data, folder / auxiliary.FILE))


def test_a_file_of_as_many_other_examples_is_refused(data: Reviews, folder: Path):
    losses(Models(data), folder)
    other = Reviews(train_size=ROWS, validation_size=2, test_size=2, seed=1, cache=data.cache)
    with pytest.raises(ValueError, match="flood.losses=.*other data"):
        adopted(other, folder / auxiliary.FILE)


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "no such file"),
        (torch.ones(ROWS - 1), f"wanted one for each of {ROWS} examples"),
        ({"a": 1}, f"wanted one for each of {ROWS} examples"),
        (torch.full((ROWS,), torch.nan), "not finite"),
        (b"hello", "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_file_that_does_not_fit_is_refused(
    content: object, said: str, data: Reviews, tmp_path: Path
):
    path = tmp_path / "losses.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"flood.losses={path}: .*{said}"):
        adopted(data, path)


def test_more_folds_than_examples_are_refused(data: Reviews, folder: Path):
    with pytest.raises(ValueError, match=f"flood.folds=24: more than the {ROWS} training examples"):
        losses(Models(data), folder, folds=24)
