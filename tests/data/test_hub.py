"""Hub data sets: the same loader reads a folder, so that no network is needed here."""

import json
from pathlib import Path

import pytest

from lit_adv.data.hub import Hub


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
