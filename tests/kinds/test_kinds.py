"""Kinds: what tables become, row by row and token by token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds.tables import rows, write
from transformers import PreTrainedTokenizerFast

from lit_adv.data.columns import Columns
from lit_adv.data.local import Local
from lit_adv.data.splits import Split, Splits
from lit_adv.data.tokenised import Tokenised
from lit_adv.kinds.causal_lm import CausalLM
from lit_adv.kinds.contrastive import Contrastive
from lit_adv.kinds.kind import Kind
from lit_adv.kinds.labels import Labels, weights_of
from lit_adv.kinds.multi_label import MultiLabel
from lit_adv.kinds.multiple_choice import MultipleChoice
from lit_adv.kinds.token_classification import TokenClassification, first_pieces
from lit_adv.models import tiny

KINDS: dict[str, Kind] = {
    "token_classification": TokenClassification(),
    "multi_label": MultiLabel(),
    "multiple_choice": MultipleChoice(),
    "causal_lm": CausalLM(prompt="prompt"),
    "contrastive": Contrastive(positive="text_pair", negative="far"),
}
SIZES: dict[str, Any] = {"width": 16, "heads": 2, "max_tokens": 64, "vocabulary": 300}


def _data(tmp_path: Path, name: str, kind: Kind | None = None, **options: Any) -> Local:
    options = {"text_pair": None, "cache": str(tmp_path / "cache"), "batch_size": 4, **options}
    data = Local(path=str(write(tmp_path / name, name)), **options)
    data.kind = kind or KINDS[name]
    return data


def _fed(data: Local, **options: Any) -> PreTrainedTokenizerFast:
    """The data with the tokenizer of a small network; returns it."""
    model = tiny.build(data.splits, **SIZES, **options)
    data.adapt(model)
    return model.tokenizer  # pyright: ignore


@pytest.mark.parametrize("name", KINDS)
def test_batches_are_rows_padded_and_the_cache_gives_the_same_again(name: str, tmp_path: Path):
    data = _data(tmp_path, name)
    _fed(data)
    seen: list[int] = []
    for batch in data.val_dataloader():
        texts = batch["input_ids"]
        assert texts.shape == batch["attention_mask"].shape == batch["special_tokens_mask"].shape
        assert texts.ndim == (3 if name in ("multiple_choice", "contrastive") else 2)
        assert len(batch["index"]) == len(texts)
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(8))
    (again,) = data.val_dataloader()
    other = _data(tmp_path, name)
    _fed(other)  # from the cache
    (cached,) = other.val_dataloader()
    assert again.keys() == cached.keys()
    assert all(torch.equal(again[key], cached[key]) for key in again)


def test_the_first_piece_of_a_word_has_its_tag_and_no_other_has_one(tmp_path: Path):
    data = _data(tmp_path, "token_classification")
    tokenizer = _fed(data)
    assert data.splits.label_names == ["B-per", "I-per", "O"]
    table = rows("token_classification", 8, 1)
    (batch,) = data.val_dataloader()
    for place, row in enumerate(batch["index"].tolist()):
        words, tags = table[row]["tokens"], table[row]["tags"]
        wanted_ids, wanted = [tokenizer.cls_token_id], [-100]
        for place_of, (word, tag) in enumerate(zip(words, tags, strict=True)):
            pieces = tokenizer([word], is_split_into_words=True, add_special_tokens=False)
            ids = pieces["input_ids"]
            wanted_ids += ids
            index = ["B-per", "I-per", "O"].index(tag)
            blank = int(tokenizer.convert_ids_to_tokens(ids)[0] == "Ġ" and place_of > 0)
            wanted += [-100] * blank + [index] + [-100] * (len(ids) - 1 - blank)
        wanted_ids, wanted = [*wanted_ids, tokenizer.sep_token_id], [*wanted, -100]
        real = int(batch["attention_mask"][place].sum())
        assert batch["input_ids"][place, :real].tolist() == wanted_ids
        assert batch["labels"][place, :real].tolist() == wanted
        assert bool((batch["labels"][place, real:] == -100).all())


def test_several_labels_are_zeros_and_ones_in_the_order_of_their_names(tmp_path: Path):
    data = _data(tmp_path, "multi_label")
    _fed(data)
    assert data.splits.label_names == ["house", "old"]
    table = rows("multi_label", 8, 1)
    (batch,) = data.val_dataloader()
    for labels, row in zip(batch["labels"], batch["index"].tolist(), strict=True):
        given = table[row]["label"]
        assert labels.tolist() == [int("house" in given), int("old" in given)]


def test_choices_stand_beside_their_question_one_after_another(tmp_path: Path):
    data = _data(tmp_path, "multiple_choice")
    tokenizer = _fed(data)
    table = rows("multiple_choice", 8, 1)
    (batch,) = data.val_dataloader()
    assert batch["input_ids"].shape[:2] == (8, 3)
    for ids, label, row in zip(
        batch["input_ids"], batch["labels"].tolist(), batch["index"].tolist(), strict=True
    ):
        assert label == table[row]["label"]
        for k, choice in enumerate(table[row]["choices"]):
            wanted = tokenizer(table[row]["text"], choice)["input_ids"]
            assert ids[k, : len(wanted)].tolist() == wanted


def test_choices_may_stand_in_columns_of_their_own():
    table = {"text": ["a", "b"], "one": ["c", "d"], "two": ["e", "f"], "label": [1, 0]}
    split = MultipleChoice(choices=["one", "two"]).split(Columns(), "train", table, None)
    assert split.texts == [["a", "a"], ["b", "b"]] and split.pairs == [["c", "e"], ["d", "f"]]


def test_prompts_and_beginnings_are_not_learnt_texts_and_ends_are(tmp_path: Path):
    data = _data(tmp_path, "causal_lm")
    tokenizer = _fed(data)
    table = rows("causal_lm", 8, 1)
    (batch,) = data.val_dataloader()
    for place, row in enumerate(batch["index"].tolist()):
        prompt, text = (
            tokenizer(table[row][name], add_special_tokens=False)["input_ids"]
            for name in ("prompt", "text")
        )
        ids = [tokenizer.cls_token_id, *prompt, *text, tokenizer.sep_token_id]
        labels = [-100] * (1 + len(prompt)) + [*text, tokenizer.sep_token_id]
        real = len(ids)
        assert batch["input_ids"][place, :real].tolist() == ids
        assert batch["labels"][place, :real].tolist() == labels
        assert bool((batch["labels"][place, real:] == -100).all())
        special = batch["special_tokens_mask"][place, :real].nonzero().flatten().tolist()
        assert special == [0, real - 1]


def test_a_text_that_is_cut_has_no_end(tmp_path: Path):
    data = _data(tmp_path, "causal_lm", CausalLM(), max_length=4)
    tokenizer = _fed(data)
    (batch,) = data.val_dataloader()
    assert batch["input_ids"].shape[1] == 4
    cut = batch["attention_mask"].sum(1) == 4
    ends = batch["input_ids"][:, 3] == tokenizer.sep_token_id
    assert bool((batch["special_tokens_mask"][cut & ~ends][:, 3] == 0).all()) and bool(cut.any())


def test_views_are_the_text_twice_or_its_positive_and_negative(tmp_path: Path):
    table = rows("contrastive", 8, 1)
    for kind, keys in (
        (Contrastive(), ("text", "text")),
        (KINDS["contrastive"], ("text", "text_pair", "far")),
    ):
        data = _data(tmp_path, "contrastive", kind)
        tokenizer = _fed(data)
        (batch,) = data.val_dataloader()
        assert batch["input_ids"].shape[:2] == (8, len(keys))
        for ids, row in zip(batch["input_ids"], batch["index"].tolist(), strict=True):
            for view, key in zip(ids, keys, strict=True):
                wanted = tokenizer(table[row][key])["input_ids"]
                assert view[: len(wanted)].tolist() == wanted


def test_similarities_are_measured_on_pairs_while_views_are_learnt(tmp_path: Path):
    data = _data(tmp_path, "contrastive", Contrastive(similarity="score"))
    _fed(data)
    table = rows("contrastive", 8, 1)
    (batch,) = data.val_dataloader()
    scores = [table[row]["score"] for row in batch["index"].tolist()]
    assert batch["labels"].tolist() == pytest.approx(scores)
    train = next(iter(data.train_dataloader()))
    assert torch.equal(train["input_ids"][:, 0], train["input_ids"][:, 1])
    assert batch["input_ids"].shape[1] == train["input_ids"].shape[1] == 2


def test_rows_of_several_texts_are_batched_by_their_longest():
    starts, columns = np.array([0, 1, 4, 6, 8, 9, 14]), {"input_ids": np.arange(14)}
    data = Tokenised(columns, starts, np.array([0, 1, 2]), texts=2)
    assert len(data) == 3 and data.lengths.tolist() == [3, 2, 5]
    found = data[[2, 0]]
    assert found["input_ids"].tolist() == [8, 9, 10, 11, 12, 13, 0, 1, 2, 3]
    assert found["lengths"].tolist() == [1, 5, 1, 3] and found["labels"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("kind", "table", "says"),
    [
        (TokenClassification(), {"tokens": [["a", "b"]], "tags": [["O"]]}, "not as many words"),
        (TokenClassification(), {"tokens": ["a b"], "tags": [["O", "O"]]}, "which is no list"),
        (TokenClassification(), {"tokens": [["a"]], "tags": [[-1]]}, r"task\.tags=tags: .*-1"),
        (TokenClassification(), {"text": ["a"]}, r"task\.words=tokens: no such column"),
        (TokenClassification(), {"tokens": [["a"]], "tags": [1]}, r"task\.tags=tags: .* no list"),
        (MultiLabel(), {"text": ["a", "b"], "label": [["x"], "x"]}, r"row 2 .* 'x', which is no l"),
        (MultiLabel(), {"text": ["a"], "label": [[0, 1, 0]]}, "names a label twice"),
        (MultiLabel(), {"text": ["a"], "label": [[["x"]]]}, r"data\.label=label: row 1"),
        (Labels(), {"text": [None], "label": [0]}, r"data\.text=text: row 1 .* has none"),
        (
            MultipleChoice(),
            {"text": ["a"], "choices": [{"text": ["b", "c"]}], "label": [0]},
            r"task\.choices=choices: row 1 .* no list",
        ),
        (MultipleChoice(), {"text": ["a"], "label": [0]}, r"task\.choices=choices: no such column"),
        (MultipleChoice(), {"text": ["a"], "choices": [["x"]], "label": [0]}, "two or more"),
        (
            MultipleChoice(),
            {"text": ["a", "b"], "choices": [["x", "y"], ["x"]], "label": [0, 0]},
            "row 2 .* 1 choices, the first 2",
        ),
        (
            MultipleChoice(),
            {"text": ["a"], "choices": [["x", "y"]], "label": [2]},
            "not one of 0, 1",
        ),
        (CausalLM(prompt="question"), {"text": ["a"]}, r"task\.prompt=question: no such column"),
        (Contrastive(negative="far"), {"text": ["a"]}, r"task\.negative=far: no such column"),
    ],
)
def test_rows_that_cannot_be_read_are_named(kind: Kind, table: dict[str, Any], says: str):
    tables: dict[str, Any] = dict.fromkeys(("train", "validation", "test"), table)
    with pytest.raises(ValueError, match=says):
        Columns().splits(tables, 0.1, 0, kind)


def test_numbers_without_rows_to_compare_are_named():
    tables: dict[str, Any] = dict.fromkeys(("train", "validation", "test"), {"text": ["a", "b"]})
    with pytest.raises(ValueError, match=r"task\.similarity=score: no such column in the valid"):
        Columns().splits(tables, 0.1, 0, Contrastive(similarity="score"))


def test_similarities_need_rows_of_their_own_and_numbers():
    table = {"text": ["a", "b"], "text_pair": ["c", "d"], "score": [1.0, None]}
    kind = Contrastive(similarity="score")
    with pytest.raises(ValueError, match="there is no test split"):
        Columns().splits({"train": table}, 0.5, 0, kind)
    tables: dict[str, Any] = dict.fromkeys(("train", "validation", "test"), table)
    with pytest.raises(ValueError, match=r"task\.similarity=score: row 2 of the validation split"):
        Columns().splits(tables, 0.5, 0, kind)


def test_a_missing_prompt_is_an_empty_one():
    table = {"text": ["a", "b"], "prompt": [None, "c"]}
    split = CausalLM(prompt="prompt").split(Columns(), "train", table, None)
    assert split.pairs == ["", "c"]


def test_words_are_tokenised_as_in_running_text():
    """Byte-level tokenizers take a word behind a blank for another than the same word without."""
    offsets = [(0, 0), (0, 3), (3, 9), (9, 10), (10, 12), (0, 0)]  # "ann smiths x": blank inside
    found = first_pieces(
        ["ann", "smith", "xy"], [1, 2, 3], [(0, 0), (0, 3), (3, 7), (7, 9), (9, 12)]
    )
    assert found == [-100, 1, 2, -100, 3]
    assert first_pieces(["ann", "smiths", "x"], [1, 2, 3], offsets[:3]) == [-100, 1, 2]
    assert first_pieces(["a", "b"], [1, 2], [(0, 1), (1, 2), (2, 3)]) == [1, -100, 2]  # a blank


def test_two_ends_of_text_are_two_files_of_the_cache(tmp_path: Path):
    data = _data(tmp_path, "causal_lm")
    tokenizer = _fed(data)
    (first,) = data.val_dataloader()
    tokenizer.sep_token = "[MASK]"
    data.tokenise(tokenizer)
    (second,) = data.val_dataloader()
    assert not torch.equal(first["input_ids"], second["input_ids"])


def test_a_prompt_that_leaves_nothing_to_learn_is_refused(tmp_path: Path):
    data = _data(tmp_path, "causal_lm", max_length=3)
    with pytest.raises(ValueError, match=r"data\.max_length=3: the prompt of row \d+ has"):
        _fed(data)


@pytest.mark.parametrize("name", ["multiple_choice", "causal_lm", "contrastive"])
def test_words_are_left_out_only_where_texts_are_not_learnt_whole(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"model\.drop_token=0\.1: with task={name}"):
        _fed(_data(tmp_path, name), drop_token=0.1)


def test_classes_weigh_as_asked_and_numbers_have_none():
    labels = [0, 0, 0, 1]
    assert weights_of("balanced", labels, 2) == [4 / 6, 2.0]
    assert weights_of([1.0, 3.0], labels, 2) == [1.0, 3.0]
    assert weights_of(None, labels, 2) is None
    with pytest.raises(ValueError, match=r"task\.class_weights=even"):
        weights_of("even", labels, 2)
    split = Split(texts=["x"], labels=[0.5])
    splits = Splits(train=split, validation=split, test=split, label_names=None)
    refused: tuple[dict[str, Any], ...] = ({"class_weights": "balanced"}, {"label_smoothing": 0.1})
    for options in refused:
        with pytest.raises(ValueError, match="the labels are numbers"):
            Labels(**options).task(torch.nn.Linear(1, 1), splits)
