"""`lit-adv attack`, `train.py attack=[...]`, and the callback: on one small run."""

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commandline import SMALL, refusal, train
from forks import Fork

from lit_adv.attacks.attack import attack
from lit_adv.cli.attack import compose
from lit_adv.cli.main import main

ATTACKS = "attack=[textfooler,deepwordbug/textattack,embedding_pgd]"
KEYS = {
    *("clean_accuracy", "accuracy_under_attack", "success_rate", "mean_queries", "mean_changed"),
    *("mean_similarity", "seconds", "queries_per_second", "calibrated", "versions", "recipe"),
    *("resources", "settings", "examples"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that was attacked while it trained and after it was tested; its results."""
    folder = tmp_path_factory.mktemp("run") / "run"
    watch = "callbacks.accuracy_under_attack"
    options = [*SMALL, "model.vocabulary=300", "model.max_tokens=128", ATTACKS, "attack.n=12"]
    options += ["callbacks=accuracy_under_attack", f"{watch}.n=8", f"{watch}.every_n_epochs=2"]
    options += ["monitor=attack/textfooler", "optimized_metric=attack/embedding_pgd"]
    with pytest.MonkeyPatch.context() as patch:
        return folder, train(patch, folder, *options)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Run `lit-adv attack` in this process."""
    monkeypatch.setattr(sys, "argv", ["lit-adv", "attack", *map(str, arguments)])
    main()


def records(folder: Path) -> list[dict[str, Any]]:
    """What stands in attack.jsonl, without times."""
    lines = [json.loads(line) for line in (folder / "attack.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "at"} for line in lines]


def test_a_run_is_attacked_after_testing(run: tuple[Path, dict[str, Any]]) -> None:
    folder, results = run
    names = ["textfooler", "deepwordbug_textattack", "embedding_pgd"]
    assert list(results["attack"]) == names
    for name in names:
        found = json.loads((folder / "attacks" / name / "attack.json").read_text())
        assert set(found) >= KEYS and found["n"] == 12
        assert found["accuracy_under_attack"] == pytest.approx(100 * results["attack"][name])
        assert found["victim"]["sha256"] and found["data"]["name"] == "reviews"
        assert len(records(folder / "attacks" / name)) == 12
        page = (folder / "attacks" / name / "attack.html").read_text()
        assert page.startswith("<!DOCTYPE html>") and name in page


def test_the_callback_logs_what_checkpoints_are_chosen_by(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [float(row["attack/textfooler"]) for row in rows if row["attack/textfooler"]]
    assert len(values) == 2 and all(0 <= value <= 1 for value in values)


def test_what_the_callback_says_of_the_best_weights_is_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was not to measure again, and a sweep may go by it."""
    watch = "callbacks.accuracy_under_attack"
    options = [*SMALL, "callbacks=accuracy_under_attack", f"{watch}.n=16", "optimizer.lr=0.01"]
    options += [
        f"{watch}.every_n_epochs=5",
        "monitor=val/loss",
        "optimized_metric=attack/textfooler",
    ]
    results = train(monkeypatch, tmp_path / "run", *options)
    assert "textfooler" not in results["val"]
    more = ["n=16", "attack.split=validation", "attack.calibrate=false"]
    command(monkeypatch, tmp_path / "run", "attack=textfooler", *more)
    path = tmp_path / "run" / "attacks" / "textfooler" / "attack.json"
    found = json.loads(path.read_text())["accuracy_under_attack"]
    assert results["attack"]["textfooler"] == pytest.approx(found / 100)


def test_folder_checkpoint_and_export_are_the_same_victim(
    run: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = run
    alone = tmp_path / "elsewhere"
    shutil.copytree(folder / "export", alone)
    data = [
        f"data.{k}={v}" for k, v in (("train_size", 48), ("validation_size", 32), ("test_size", 32))
    ]
    found = []
    for victim, more in (
        (folder, []),
        (folder / "checkpoints" / "best.ckpt", []),
        (alone, ["data=reviews", *data]),
    ):
        output = tmp_path / str(len(found))
        command(monkeypatch, victim, "attack=textfooler", "n=12", f"attack.output={output}", *more)
        found.append(records(output / "textfooler"))
        assert "at T =" in capsys.readouterr().out
    assert found[0] == found[1] == found[2] == records(folder / "attacks" / "textfooler")


def test_killed_it_goes_on_and_several_processes_are_as_one(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run
    output = tmp_path / "attacks"
    arguments = [str(folder), "attack=textfooler", "n=12", f"attack.output={output}"]
    several = [*arguments, "attack.processes=2", "attack.concurrency=1"]
    process = Fork(
        "lit_adv.cli.main.main", log=tmp_path / "killed", argv=["lit-adv", "attack", *several]
    )
    lines = output / "textfooler" / "attack.part0.jsonl"
    while not (lines.exists() and lines.read_text().count("\n") >= 2):
        if ended := process.ended(0.05):
            pytest.fail(f"ended too early: {ended}")
    process.kill()
    assert not (output / "textfooler" / "attack.json").exists()

    cfg = compose(arguments[0], several[1:])
    attack(folder, cfg, output)
    assert records(output / "textfooler") == records(folder / "attacks" / "textfooler")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no run that names its data; give data=local data.path=..."),
        (
            ["nowhere", "data=reviews"],
            "nowhere: no victim: wanted a run's folder (with export/), a ",
        ),
        (["RUN", "attack=textfoolr"], "attack=textfoolr: no such choice; choose one of"),
        (["RUN", "attack.recipes.textfooler.neighbours=0"], "attack.neighbours=0: needs to be at"),
        (["RUN", "attack.device=tpu"], "attack.device=tpu: not here"),
        (
            ["RUN", "attack.resources.neighbours=no.txt"],
            "attack.resources.neighbours=no.txt: no su",
        ),
        (["RUN", "data=local", "data.path=../shared"], "data.path=../shared: no training file"),
        (["RUN", "n=0"], "attack.n=0: needs to be at least 1"),
        (["RUN", "seed=abc"], "attack.seed=abc: needs to be a whole number"),
        (
            ["RUN", "attack=textfooler", f"attack.output={__file__}"],
            f"{__file__}/textfooler: Not a directory",
        ),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(
    run: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    message: str,
) -> None:
    victim, *rest = arguments
    if "../shared" in message and not Path("../shared").is_dir():
        message = "data.path=../shared: no such file or folder"
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, run[0] if victim == "RUN" else victim, *rest)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}"), line


def test_what_could_not_be_done_after_training_is_refused_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (
            ["attack=pwws", "attack.resources.wordnet=no"],
            "attack.resources.wordnet=no: no such file",
        ),
        (["attack=pwws", "attack.n=-1"], "attack.n=-1: needs to be at least 1"),
        (["optimized_metric=attack/pwws"], "optimized_metric=attack/pwws: no such metric"),
    ):
        line = refusal(monkeypatch, capsys, tmp_path / "run", *SMALL, *options)
        assert line.startswith(message)
    assert not list(tmp_path.rglob("*.ckpt"))
