"""Local files: formats, columns, labels, and splits that are missing."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas
import pytest

from lit_adv.data.local import Local

ROWS = [{"text": f"text, {n}", "label": n % 3, "score": n / 4} for n in range(40)]


def write(folder: Path, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    folder.mkdir(exist_ok=True)
    path, table = folder / name, pandas.DataFrame(list(rows))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    match name.partition(".")[2]:
        case "jsonl":
            path.write_text(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "json":
            path.write_text(json.dumps(list(rows)))
        case "csv":
            table.to_csv(path, index=False)
        case "tsv":
            table.to_csv(path, index=False, sep="\t")
        case "parquet":
            table.to_parquet(path)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv", "tsv", "parquet"])
def test_every_format_reads_the_same(suffix: str, tmp_path: Path):
    for name, rows in (("train", ROWS), ("dev", ROWS[:6]), ("test", ROWS[6:9])):
        write(tmp_path / "data", f"{name}.{suffix}", rows)
    splits = Local(path=str(tmp_path / "data")).splits
    assert splits.train.texts == [row["text"] for row in ROWS]
    assert splits.train.labels == [row["label"] for row in ROWS]
    assert [len(split) for _, split in splits.items()] == [40, 6, 3]
    assert splits.label_names == ["0", "1", "2"]
    assert splits.train.pairs is None


def test_one_file_is_cut_into_three_splits_without_overlap(tmp_path: Path):
    write(tmp_path, "all.jsonl", ROWS)
    splits = Local(path=str(tmp_path / "all.jsonl"), validation_size=0.2).splits
    assert [len(split) for _, split in splits.items()] == [24, 8, 8]
    texts = [text for _, split in splits.items() for text in split.texts]
    assert sorted(texts) == sorted(row["text"] for row in ROWS)
    again = Local(path=str(tmp_path / "all.jsonl"), validation_size=0.2).splits
    assert again == splits
    other = Local(path=str(tmp_path / "all.jsonl"), validation_size=0.2, seed=1).splits
    assert other.validation.texts != splits.validation.texts


def test_a_missing_validation_split_is_cut_from_the_training_rows(tmp_path: Path):
    write(tmp_path / "data", "train.csv", ROWS)
    write(tmp_path / "data", "test.csv", ROWS[:5])
    splits = Local(path=str(tmp_path / "data")).splits
    assert [len(split) for _, split in splits.items()] == [36, 4, 5]
    assert splits.test.texts == [row["text"] for row in ROWS[:5]]


def test_labels_may_be_names_in_any_order(tmp_path: Path):
    rows = [{"text": "a", "label": name} for name in ("no", "yes", "maybe") * 5]
    write(tmp_path, "all.jsonl", rows)
    assert Local(path=str(tmp_path / "all.jsonl")).splits.label_names == ["maybe", "no", "yes"]
    named = Local(path=str(tmp_path / "all.jsonl"), label_names=["no", "maybe", "yes"]).splits
    assert named.label_names == ["no", "maybe", "yes"]
    assert {0, 1, 2} == set(named.train.labels)


def test_names_of_classes_come_from_meta_json(tmp_path: Path):
    write(tmp_path / "data", "train.jsonl", [{"text": "a", "label": n % 2} for n in range(30)])
    (tmp_path / "data" / "meta.json").write_text('{"label_names": ["negative", "positive"]}')
    assert Local(path=str(tmp_path / "data")).splits.label_names == ["negative", "positive"]


def test_pairs_and_regression(tmp_path: Path):
    rows = [{"text": "a", "text_pair": f"b{n}", "label": n / 2} for n in range(30)]
    write(tmp_path, "all.jsonl", rows)
    splits = Local(path=str(tmp_path / "all.jsonl"), regression=True).splits
    assert splits.label_names is None
    assert splits.train.pairs is not None and splits.train.pairs[0].startswith("b")
    assert all(isinstance(label, float) for label in splits.train.labels)
    alone = Local(path=str(tmp_path / "all.jsonl"), regression=True, text_pair=None).splits
    assert alone.train.pairs is None


def test_columns_may_have_other_names(tmp_path: Path):
    rows = [{"body": f"t{n}", "other": "o", "mood": n % 2} for n in range(30)]
    write(tmp_path, "all.csv", rows)
    path = str(tmp_path / "all.csv")
    splits = Local(path=path, text="body", text_pair="other", label="mood").splits
    assert splits.train.texts[0].startswith("t") and splits.train.pairs is not None


def test_a_limit_takes_training_rows_at_random_and_always_the_same(tmp_path: Path):
    write(tmp_path, "all.jsonl", ROWS)
    limited = [Local(path=str(tmp_path / "all.jsonl"), limit=10, seed=s).splits for s in (0, 0, 1)]
    assert [len(splits.train) for splits in limited] == [10, 10, 10]
    assert limited[0].train.texts == limited[1].train.texts != limited[2].train.texts
    assert len(limited[0].test) == 4
