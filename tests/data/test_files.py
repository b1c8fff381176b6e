"""Files that cannot be read end in one line with the key, the file and the cause."""

import gzip
from pathlib import Path

import pytest
from commandline import SMALL, refusal

from lit_adv.data.files import read, stem_and_suffix


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("texts.txt", b"one\n", "unknown format; use one of .jsonl, .json, .csv, .tsv, .parquet"),
        ("texts.txt.gz", gzip.compress(b"one\n", mtime=0), "unknown format; use one of .jsonl"),
        ("texts", b"one\n", "unknown format; use one of .jsonl"),
        ("texts.csv", b"", "the file is empty"),
        ("texts.csv", b"text,label\n", ""),
        ("texts.csv", b"text\na\nb,c,d\n", "cannot be read as csv"),
        ("texts.csv", b"text\n\xff\xfe\xff\n", "cannot be read as csv"),
        ("texts.jsonl", b'{"text": ', "cannot be read as json"),
        ("texts.jsonl.gz", b"not zipped", "cannot be read as json"),
        ("texts.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: bytes, said: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as refused:
        read(tmp_path / name, "data.unlabelled")
    assert str(refused.value).startswith(f"data.unlabelled={tmp_path / name}: {said}")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["texts.jsonl.gz", "texts.parquet"])
def test_the_command_says_it_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / name).write_text("neither")
    options = [*SMALL, "method=vat", f"data.unlabelled={tmp_path / name}"]
    line = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    assert line.startswith(f"data.unlabelled={tmp_path / name}: cannot be read as ")


@pytest.mark.parametrize("folder", ["plain", "with space", "run[1]", "lr=1,2", "ünï"])
def test_a_folder_may_have_any_name(folder: str, tmp_path: Path):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "texts.csv").write_text('text,label\n"a, b",1\nc,0\n')
    table = read(tmp_path / folder / "texts.csv")
    assert {name: list(table[name]) for name in table} == {"text": ["a, b", "c"], "label": [1, 0]}


def test_a_file_that_changes_is_read_anew(tmp_path: Path):
    path = tmp_path / "texts.jsonl"
    for text in ("first", "other", "longer than these"):
        path.write_text(f'{{"text": "{text}"}}\n')
        assert list(read(path)["text"]) == [text]


def test_stem_and_suffix_are_those_without_gz():
    assert stem_and_suffix(Path("a/train.jsonl.gz")) == ("train", ".jsonl")
    assert stem_and_suffix(Path("a/train.v2.csv")) == ("train.v2", ".csv")
