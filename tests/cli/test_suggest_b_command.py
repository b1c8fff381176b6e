"""`lit-adv suggest-b`: flood levels from the folder of a run, on the console and as JSON."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from logs import TURNED, written

from lit_adv.cli.main import main
from lit_adv.flood.half import Half

ACCORDANT = """
    step epoch train/loss val/loss accordance/all accordance/same accordance/cross
    1    0     0.80       -        -              -               -
    2    0     -          -        0.5            0.8             -0.1
    3    0     0.60       -        -              -               -
    3    0     -          0.65     -              -               -
    5    1     0.50       -        -              -               -
    5    1     -          -        0.1            0.9             -0.2
    6    1     0.40       -        -              -               -
    7    1     0.20       -        -              -               -
    7    1     -          0.40     -              -               -
    8    2     -          -        -0.1           nan             -0.1
    9    2     0.20       -        -              -               -
    11   2     0.10       -        -              -               -
    11   2     -          0.55     -              -               -
    12   2     -          -        0.3            -0.1            -0.2
"""
"""all: + to - between 5 and 8; same: + to - between 5 and 12; cross: never."""


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object
) -> str:
    """What the command says on a console of the usual width."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["lit-adv", "suggest-b", *map(str, args)])
    capsys.readouterr()
    main()
    said = capsys.readouterr()
    assert not said.err
    return said.out


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path
) -> dict[str, Any]:
    """What it says in JSON, the suggestions by their names."""
    answer = json.loads(printed(monkeypatch, capsys, run, "--json"))
    return {**answer, "found": {each.pop("name"): each for each in answer["found"]}}


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object
) -> str:
    """Run what must be refused; returns the one line that it says."""
    with pytest.raises(SystemExit) as end:
        printed(monkeypatch, capsys, *args)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# ---- what is suggested ---------------------------------------------------------------------------


def test_a_turn_suggests_its_training_loss_and_half_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    answer = told(monkeypatch, capsys, written(tmp_path))
    assert answer["found"] == {
        name: {
            "event": "val/loss lowest, 0.4",
            "step": 7,
            "epoch": 1,
            "b": pytest.approx(b),
            "command": f"python train.py flood=fixed flood.b={b:.3g}",
        }
        for name, b in (("half", 0.175), ("turn", 0.35))
    }
    assert answer["found"]["half"]["b"] == Half(str(tmp_path)).b
    grid = "0.0875,0.153,0.219,0.284,0.35"
    assert answer["sweep"] == f"python train.py -m flood=fixed flood.b={grid}"
    assert answer["lacking"] == []


def test_accordance_suggests_the_training_loss_while_it_first_changed_its_sign(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    answer = told(monkeypatch, capsys, written(tmp_path, ACCORDANT))
    found = answer["found"]
    assert list(found) == ["half", "turn", "accordance/all", "accordance/same"]
    for name, step, epoch, b in (("all", 8, 2, 0.3), ("same", 12, 2, (0.4 + 0.2 + 0.2 + 0.1) / 4)):
        each = found[f"accordance/{name}"]
        assert (each["event"], each["step"], each["epoch"]) == ("+ to -", step, epoch)
        assert each["b"] == pytest.approx(b)
    assert answer["lacking"] == ["accordance/cross never changed its sign"]
    levels = [float(b) for b in answer["sweep"].rpartition("=")[2].split(",")]
    assert levels[0] == pytest.approx(found["half"]["b"] / 2, rel=1e-2)
    assert levels[-1] == pytest.approx(found["turn"]["b"], rel=1e-2)


@pytest.mark.parametrize(
    ("values", "event", "step"),
    [
        (["-0.1", "0.2", "-0.3"], "- to +", 5),
        (["-0.1", "0.0", "0.3"], "- to +", 8),
        (["0.1", "0", "0.2", "-0.1"], "+ to -", 12),
        (["0.0", "-0.1", "0.2"], "- to +", 8),
    ],
)
def test_a_zero_has_no_sign_and_both_directions_count(
    values: list[str],
    event: str,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    steps = zip((2, 5, 8, 12), values, strict=False)
    rows = [f"{at} 0 - - {value}" for at, value in steps]
    losses = [f"{at} 0 {at / 10} 0.5 -" for at in range(13)]
    table = "\n".join(["step epoch train/loss val/loss accordance/validation", *rows, *losses])
    answer = told(monkeypatch, capsys, written(tmp_path, table))
    found = answer["found"]["accordance/validation"]
    assert (found["event"], found["step"]) == (event, step)
    assert "val" in answer["lacking"][0] and list(answer["found"]) == ["accordance/validation"]


def test_a_run_that_has_not_turned_still_tells_of_its_accordance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    run = written(tmp_path, ACCORDANT.replace("0.55", "0.35"))
    answer = told(monkeypatch, capsys, run)
    assert list(answer["found"]) == ["accordance/all", "accordance/same"]
    assert answer["lacking"][0].startswith("the validation loss never turned")
    assert "no level: the validation loss never turned" in printed(monkeypatch, capsys, run)


def test_the_console_shows_the_same_and_the_lines_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    run = written(tmp_path / ("long" * 30), ACCORDANT)
    answer = told(monkeypatch, capsys, run)
    said = printed(monkeypatch, capsys, run)
    lines = said.splitlines()
    for name, each in answer["found"].items():
        (row,) = (line for line in lines if line.startswith(f"│ {name} "))
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        figures = [str(each["step"]), str(each["epoch"]), f"{each['b']:.3g}"]
        assert cells == [name, each["event"], *figures]
        assert f"{each['command']}  # {name}" in lines
    assert f"{answer['sweep']}  # around all" in lines
    assert "no level: accordance/cross never changed its sign" in lines


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TURNED.replace("0.55", "0.30"), "the validation loss never turned"),
        (TURNED.replace("train/loss", "loss/clean"), "no train/loss"),
        (ACCORDANT.replace("train/loss", "loss/clean"), "no train/loss"),
    ],
)
def test_a_run_that_suggests_nothing_is_refused_in_one_line(
    table: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    line = refused(monkeypatch, capsys, written(tmp_path, table))
    assert line.startswith(f"flood.run={tmp_path}: {said}")


def test_a_flooded_run_or_no_run_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    wet = written(tmp_path / "wet", config="flood:\n  _target_: lit_adv.flood.fixed.Fixed\n")
    for run, said in ((wet, "it was flooded itself"), (tmp_path / "nowhere", "no such folder")):
        assert refused(monkeypatch, capsys, run).startswith(f"flood.run={run}: {said}")


def test_the_command_is_offered_and_taken_with_a_dash_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["lit-adv", "--help"])
    main()
    (offered,) = re.findall(r"^commands: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert "suggest-b" in offered.split(", ") and "_" not in offered
    monkeypatch.setattr(sys, "argv", ["lit-adv", "suggest_b"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == f"error: suggest_b: no such command; choose one of {offered}\n"
