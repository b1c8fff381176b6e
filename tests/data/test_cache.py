"""Tokenised splits come from files: the same for the same, whole, whoever else writes them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from lit_adv.data.cache import Cache
from lit_adv.data.reviews import Reviews
from lit_adv.data.splits import Split
from lit_adv.data.tokenised import Tokenised
from lit_adv.models.tiny import train_tokenizer

SPLIT = Split(
    texts=["the long film was good", "bad", "the plot was dull"] * 50, labels=[1, 0, 0] * 50
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    splits = Reviews(train_size=50, validation_size=1, test_size=1).splits
    return train_tokenizer(splits, 400, 64)


def test_tokenised_splits_come_from_the_cache_the_second_time(tmp_path: Path):
    def tokenised() -> Reviews:
        data = Reviews(train_size=20, validation_size=5, test_size=5, cache=str(tmp_path))
        data.tokenise(train_tokenizer(data.splits, 400, 64))
        return data

    first = tokenised()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 3 and all(path.suffix == ".npz" for path in files)
    second = tokenised()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    for one, two in zip(first.val_dataloader(), second.val_dataloader(), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_length_or_tokenizer_is_another_cache_entry(tmp_path: Path):
    for length, vocabulary in ((32, 400), (16, 400), (32, 300)):
        data = Reviews(
            train_size=20, validation_size=5, test_size=5, cache=str(tmp_path), max_length=length
        )
        data.tokenise(train_tokenizer(data.splits, vocabulary, 64))
    assert len(list(tmp_path.iterdir())) == 9


def test_use_leaves_a_tokenizer_as_it_was(tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    Cache(tokenizer, 16, str(tmp_path)).tokenised(SPLIT)
    tokenizer(["good"] * 3, truncation=True, max_length=5, padding=True)
    Cache(tokenizer, 16, str(tmp_path)).tokenised(SPLIT)
    assert len(list(tmp_path.iterdir())) == 1


def cut_left(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.truncation_side = "left"


def without_types(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.model_input_names = ["input_ids", "attention_mask"]


@pytest.mark.parametrize("change", [cut_left, without_types])
def test_what_changes_the_tokens_changes_the_file(
    change: Callable[[PreTrainedTokenizerBase], None],
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
):
    before = Cache(tokenizer, 4, str(tmp_path)).tokenised(SPLIT)
    change(tokenizer)
    after = Cache(tokenizer, 4, str(tmp_path)).tokenised(SPLIT)
    assert len(list(tmp_path.iterdir())) == 2
    same = before.columns.keys() == after.columns.keys()
    assert not same or (before.columns["input_ids"] != after.columns["input_ids"]).any()


def test_of_many_at_the_same_time_one_tokenises(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Threads have one process number, as processes on several machines may.
    begin, tokenised, times = Barrier(8), Tokenised.of, []
    monkeypatch.setattr(Tokenised, "of", lambda *given: times.append(1) or tokenised(*given))

    def write(_: int) -> list[int]:
        cache = Cache(tokenizer, 16, str(tmp_path))
        begin.wait()
        return cache.tokenised(SPLIT).columns["input_ids"].tolist()

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(8)))
    assert made == [made[0]] * 8 and len(times) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_what_cannot_be_written_leaves_nothing(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(file: object, **_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        Cache(tokenizer, 16, str(tmp_path)).tokenised(SPLIT)
    assert not list(tmp_path.iterdir())
