"""The printed table: whole on a terminal of usual width."""

from pathlib import Path
from typing import Any

import pytest

from lit_adv.attacks.table import COLUMNS, show


def test_names_and_figures_are_whole_in_80_letters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    figures: dict[str, Any] = {key: 100.0 for key, _ in COLUMNS.values()}
    attacks: dict[str, Any] = {
        **figures,
        "calibrated": {**figures, "temperature": 1.5},
        "notes": [],
    }
    show({"bert_attack_textdefender": attacks}, Path("run"))
    lines = capsys.readouterr().out.splitlines()
    (names,) = [line for line in lines if "clean" in line]
    assert names.split() == list(COLUMNS)
    plain, calibrated = [line.split() for line in lines if "100.0" in line]
    expected = [format(100.0, form) for _, form in COLUMNS.values()]
    assert plain == ["bert_attack_textdefender", *expected]
    assert calibrated == ["at", "T", "=", "1.50", *expected]
