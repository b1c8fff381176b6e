"""A multirun ends in a report of its runs."""

import sys
from pathlib import Path

import pytest
from commandline import SMALL

from lit_adv.cli.train import main


def test_a_multirun_ends_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "trainer.max_epochs=1", "flood=fixed", "flood.b=0,0.3", "seed=0,1"]
    options += [f"hydra.sweep.dir={tmp_path}", f"data.cache={tmp_path.parent}"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *options])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    main()
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    assert "4 of 4" in (tmp_path / "report.html").read_text()
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert len(lines) == 5 and "flood.b" in lines[0]
