"""Hub data sets: the same loader reads a folder, so that no network is needed here."""

import json
from pathlib import Path

import datasets
import pytest

from lit_adv.data.hub import Hub
from lit_adv.kinds.multi_label import MultiLabel
from lit_adv.kinds.token_classification import TokenClassification


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("train", 30), ("test", 5)):
        rows = [{"sentence": f"{name} {n}", "label": n % 2} for n in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def test_splits_are_taken_by_name_and_a_missing_one_is_cut_off(folder: Path):
    splits = Hub(path=str(folder), validation=None, text="sentence").splits
    assert [len(split) for _, split in splits.items()] == [27, 3, 5]
    assert splits.test.texts == [f"test {n}" for n in range(5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": "testing"}, "the test split 'testing' cannot be loaded"),
        ({"text": "body"}, "data.text=body: no such column"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, options: dict[str, str], message: str):
    named = {"text": "sentence", "test": "test", **options}
    with pytest.raises(ValueError, match=message):
        _ = Hub(path=str(folder), validation=None, text=named["text"], test=named["test"]).splits


def test_names_of_tags_and_of_several_labels_are_those_of_the_data_set(tmp_path: Path):
    words = datasets.List(datasets.Value("string"))
    labels = datasets.List(datasets.ClassLabel(names=["O", "B-x", "I-x"]))
    rows = {"tokens": [["a", "b"]] * 4, "tags": [[1, 2]] * 4}
    rows |= {"text": ["a b"] * 4, "label": [[1]] * 4}
    features = {"tokens": words, "tags": labels, "text": datasets.Value("string"), "label": labels}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        table.to_parquet(tmp_path / split / f"{split}-0.parquet")
    for kind in (TokenClassification(), MultiLabel()):
        data = Hub(path=str(tmp_path))
        data.kind = kind
        assert data.splits.label_names == ["O", "B-x", "I-x"]
