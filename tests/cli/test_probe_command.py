"""`lit-adv probe`: the closed-form head, from the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import SMALL

from lit_adv.cli.main import main


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["lit-adv", "probe", *arguments])
    main()
    return capsys.readouterr().out


def test_it_answers_better_than_chance_without_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    # Random features, and labels of which some are wrong: two standard errors above one half.
    sizes = ["data.train_size=800", "data.validation_size=400", "data.test_size=400"]
    data = [*sizes, f"data.cache={tmp_path}"]
    options = [*SMALL, *data, "model.width=64"]
    found: Any = json.loads(said(monkeypatch, capsys, *options, "--json"))
    assert found["val"]["accuracy"] > 0.55 and found["test"]["accuracy"] > 0.55
    assert found["test"].keys() == found["val"].keys() >= {"loss", "accuracy"}
    shown = said(monkeypatch, capsys, *options)
    assert f"{found['test']['accuracy']:.4f}" in shown
    assert "usage: lit-adv probe" in said(monkeypatch, capsys, "--help")


@pytest.mark.parametrize(
    "argument, says",
    [
        ("shrinkage=2", "error: shrinkage=2: needs to be a number in [0, 1]"),
        ("model=none", "error: "),
        ("model.heads=0.5", "error: model.heads=0.5: needs to be a whole number"),
    ],
)
def test_mistakes_end_in_one_line(
    argument: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as end:
        said(monkeypatch, capsys, *SMALL, argument)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)
