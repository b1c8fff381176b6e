"""`data.unlabelled=FILE` from the command line: what trains on it, and what is refused."""

from pathlib import Path

import pytest
from commandline import SMALL, refusal, train


def texts(path: Path) -> str:
    """A file of texts without labels."""
    path.write_text("".join(f'{{"text": "the film was number {n}"}}\n' for n in range(100)))
    return str(path)


@pytest.mark.parametrize("options", [[], ["mask=child_d", "update=sam"]], ids=["plain", "mixed"])
def test_vat_trains_on_them_and_not_as_without(
    options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    vat = [*SMALL, "trainer.max_epochs=1", "method=vat", *options]
    file = texts(tmp_path / "texts.jsonl")
    without = train(monkeypatch, tmp_path / "without", *vat)
    with_them = train(monkeypatch, tmp_path / "with", *vat, f"data.unlabelled={file}")
    assert with_them["train"]["steps"] == without["train"]["steps"] == 3
    assert with_them["test"]["loss"] != without["test"]["loss"]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("nowhere.jsonl", None, "no such file"),
        ("texts.csv", "body,label\na,1\n", "no column text; it has body, label"),
        ("texts.json", "[]", ""),
    ],
)
def test_an_unusable_file_is_refused_in_one_line(
    name: str,
    content: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    if content is not None:
        (tmp_path / name).write_text(content)
    options = [*SMALL, "method=vat", f"data.unlabelled={tmp_path / name}"]
    line = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    assert line.startswith(f"data.unlabelled={tmp_path / name}: {said}")


def test_a_method_that_does_not_use_them_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = texts(tmp_path / "texts.jsonl")
    options = [*SMALL, "method=fgm", f"data.unlabelled={file}"]
    line = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    assert line == f"data.unlabelled={file}: FGM uses no unlabelled texts"
