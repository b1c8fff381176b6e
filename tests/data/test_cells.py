"""Cells of tables: what is missing, what only looks so, quotation marks, and labels far apart."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lit_adv.data.files import read
from lit_adv.data.local import Local
from lit_adv.kinds.multiple_choice import MultipleChoice

WORDS = ["NA", "None", "null", "nan", "N/A"]


def lines(path: Path, rows: Sequence[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_words_for_missing_are_texts_and_what_is_empty_is_missing(tmp_path: Path):
    rows = ["text,text_pair,label", *(f"{word},{word},{word}" for word in WORDS), "a,,None"]
    for name, options in (("a.csv", rows), ("a.tsv", [row.replace(",", "\t") for row in rows])):
        table = read(lines(tmp_path / name, options))
        assert list(table["text"]) == [*WORDS, "a"]
        assert list(table["text_pair"]) == [*WORDS, None]
        assert list(table["label"]) == [*WORDS, "None"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_quotation_mark_of_a_tsv_does_not_swallow_rows(tmp_path: Path, packed: bool):
    """As in GLUE's files."""
    texts = [f"text {row}" for row in range(60)]
    texts[10], texts[40] = '"it begins', '"a "whole" quotation" , and more'
    rows = ["text\tlabel", *(f"{text}\t{row % 2}" for row, text in enumerate(texts))]
    name = tmp_path / ("a.tsv.gz" if packed else "a.tsv")
    opened = gzip.open if packed else open
    with opened(name, "wt") as file:
        file.write("\r\n".join(rows) + "\r\n")
    table = read(name)
    assert list(table["text"]) == texts
    assert list(table["label"]) == [row % 2 for row in range(60)]


@pytest.mark.parametrize("cell", ['a\tb "c"', 'a\nb "c"', 'b "c"'])
def test_a_tsv_whose_cells_are_quoted_is_unquoted(tmp_path: Path, cell: str):
    quoted = '"' + cell.replace('"', '""') + '"'
    table = read(lines(tmp_path / "b.tsv", ["text\tlabel", f"{quoted}\t1", "d\t0"]))
    assert list(table["text"]) == [cell, "d"] and list(table["label"]) == [1, 0]


def data(folder: Path, rows: Sequence[str]) -> Local:
    return Local(path=str(lines(folder / "train.csv", ["text,label", *rows])))


def test_a_missing_label_is_named_by_its_row(tmp_path: Path):
    rows = [f"text {row},{'' if row == 37 else row % 2}" for row in range(60)]
    with pytest.raises(ValueError, match=r"^data.label=label: row 38 of the train split has none$"):
        _ = data(tmp_path, rows).splits


def test_classes_are_not_made_of_the_gaps_between_numbers(tmp_path: Path):
    rows = [f"text {row},{20000 + row % 2}" for row in range(60)]
    with pytest.raises(ValueError, match=r"has the label 20001, and only 2 different ones"):
        _ = data(tmp_path, rows).splits
    names = data(tmp_path, [f"text {row},{900 + row % 2}" for row in range(60)]).splits.label_names
    assert names is not None and len(names) == 902  # a sample of a data set of many classes


def test_a_missing_choice_is_named_by_its_row(tmp_path: Path):
    rows = [
        {"text": "q", "choices": ["NA", None if row == 4 else "b"], "label": row % 2}
        for row in range(20)
    ]
    file = lines(tmp_path / "train.jsonl", [json.dumps(row) for row in rows])
    local = Local(path=str(file.parent))
    local.kind = MultipleChoice()
    with pytest.raises(ValueError, match=r"^task.choices=choices: row 5 of the .* lacks a choice"):
        _ = local.splits
