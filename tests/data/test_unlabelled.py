"""Texts without labels beside the training set: pairs of batches, epochs, columns, refusals."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from testbed import without_lightnings_own_warnings
from torch.utils.data import DataLoader

from lit_adv.data.datamodule import TextData
from lit_adv.data.local import Local
from lit_adv.data.reviews import Reviews
from lit_adv.finetuner import FineTuner
from lit_adv.models.tiny import build
from lit_adv.tasks.task import Batch

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

LABELLED, SIZE = 22, 4
BATCHES = 6  # of the labelled set, per epoch


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(path: Path, count: int) -> str:
    """A file of texts that tell their row by their length."""
    return write(path, [{"text": "good " * (1 + row % 9) + f"no {row}"} for row in range(count)])


def reviews(folder: Path, unlabelled: int | None, seed: int = 0) -> Reviews:
    """The embedded data, with so many texts beside them."""
    data = Reviews(
        train_size=LABELLED,
        validation_size=2,
        test_size=2,
        batch_size=SIZE,
        cache=str(folder),
        unlabelled=None if unlabelled is None else texts(folder / "texts.jsonl", unlabelled),
    )
    data.tokenise(build(data.splits, width=8, heads=2, max_tokens=64).tokenizer, order_seed=seed)
    return data


class Watching(FineTuner):
    """Trains on the labelled batch, and remembers which rows came, by epoch."""

    unlabelled = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[list[dict[str, Any]]] = []

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.seen.append([])

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen[-1].append(dict(batch))
        super().training_step(batch, batch_idx)

    def rows(self, *, unlabelled: bool) -> list[list[list[int]]]:
        """Row numbers of all batches, by epoch."""
        parts = [[b["unlabelled"] if unlabelled else b for b in epoch] for epoch in self.seen]
        return [[part["index"].tolist() for part in epoch] for epoch in parts]


def watched(data: TextData, epochs: int = 2) -> Watching:
    """What a training on these data sees."""
    module = Watching(build(data.splits, width=8, heads=2, max_tokens=64).task(data.splits))
    with without_lightnings_own_warnings():
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            limit_val_batches=0,
        )
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == epochs * BATCHES == module.total_steps
    return module


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


# ---- epochs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 24, 60])
def test_an_epoch_goes_through_the_labelled_set_once_however_many_texts_there_are(
    count: int, tmp_path: Path
):
    module = watched(reviews(tmp_path, count))
    for epoch in module.rows(unlabelled=False):
        assert sorted(flat(epoch)) == list(range(LABELLED))
    for epoch in module.rows(unlabelled=True):
        times = [flat(epoch).count(row) for row in range(count)]
        assert len(epoch) == BATCHES and max(times) - min(times) <= 1


def test_labelled_batches_come_as_without_the_others(tmp_path: Path):
    plain, both = reviews(tmp_path, None), reviews(tmp_path, 60)
    assert watched(both).rows(unlabelled=False) == watched(plain).rows(unlabelled=False)


def test_both_sets_are_shuffled_anew_every_epoch_by_the_runs_seed(tmp_path: Path):
    first, again = (watched(reviews(tmp_path, 60), epochs=3) for _ in range(2))
    other = watched(reviews(tmp_path, 60, seed=1), epochs=3)
    for unlabelled in (False, True):
        epochs = first.rows(unlabelled=unlabelled)
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
        assert again.rows(unlabelled=unlabelled) == epochs != other.rows(unlabelled=unlabelled)
    assert len({row for epoch in first.rows(unlabelled=True) for row in flat(epoch)}) > 4 * BATCHES


def test_two_sets_of_one_size_are_not_shuffled_alike(tmp_path: Path):
    data = reviews(tmp_path, None)
    rows = [{"text": text} for text in data.splits.train.texts]
    data.unlabelled = write(tmp_path / "own.jsonl", rows)  # the training texts, without labels
    data.tokenise(build(data.splits, width=8, heads=2, max_tokens=64).tokenizer)
    module = watched(data)
    assert module.rows(unlabelled=True) != module.rows(unlabelled=False)


# ---- batches -------------------------------------------------------------------------------------


def test_a_batch_holds_the_texts_of_the_file_and_no_labels(tmp_path: Path):
    data = reviews(tmp_path, 60)
    tokenizer = build(data.splits, width=8, heads=2, max_tokens=64).tokenizer
    for batch in watched(data, epochs=1).seen[0]:
        inside = batch["unlabelled"]
        assert "labels" in batch and "labels" not in inside
        assert inside.keys() == batch.keys() - {"labels", "unlabelled"}
        for row, ids, mask in zip(
            inside["index"], inside["input_ids"], inside["attention_mask"], strict=True
        ):
            text = "good " * (1 + int(row) % 9) + f"no {row}"
            assert ids[mask.bool()].tolist() == tokenizer(text)["input_ids"]


def test_other_batches_pass_as_they_are(tmp_path: Path):
    data = reviews(tmp_path, 60)
    held_out = {"input_ids": torch.ones(2, 3)}
    assert data.on_before_batch_transfer(held_out, 0) is held_out
    assert isinstance(reviews(tmp_path, None).train_dataloader(), DataLoader)


def test_pairs_need_both_columns_by_the_training_sets_names(tmp_path: Path):
    rows = [{"body": f"a{n}", "claim": "b " * (n % 5), "mood": n % 2} for n in range(30)]
    path = write(tmp_path / "all.jsonl", rows)
    local = partial(
        Local, path=path, text="body", text_pair="claim", label="mood", cache=str(tmp_path)
    )
    data = local(unlabelled=path, batch_size=SIZE)  # its labels are not looked at
    tokenizer = build(data.splits, width=8, heads=2, max_tokens=64).tokenizer
    data.tokenise(tokenizer)
    with without_lightnings_own_warnings():
        first = next(iter(data.train_dataloader()))[0]
    inside = data.on_before_batch_transfer(first, 0)["unlabelled"]
    for row, ids in zip(inside["index"].tolist(), inside["input_ids"], strict=True):
        wanted = tokenizer(str(rows[row]["body"]), str(rows[row]["claim"]))["input_ids"]
        assert ids[: len(wanted)].tolist() == wanted

    alone = [{"body": row["body"]} for row in rows]
    data = local(unlabelled=write(tmp_path / "alone.jsonl", alone))
    with pytest.raises(ValueError, match="alone.jsonl: no column claim; it has body"):
        data.tokenise(tokenizer)

    gap = [*rows[:2], {**rows[2], "body": None}]
    data = local(unlabelled=write(tmp_path / "gap.jsonl", gap))
    with pytest.raises(ValueError, match=r"row 3 of the unlabelled split has none"):
        data.tokenise(tokenizer)
