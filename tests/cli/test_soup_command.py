"""`lit-adv soup`: from checkpoints of real runs to a tested one, its report and its export."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import SMALL, refusal, train
from safetensors.torch import load_file
from testbed import Tensors, same
from transformers import pipeline

from lit_adv.cli.main import main

ONE_EPOCH = [*SMALL, "trainer.max_epochs=1", "model.vocabulary=300", "model.max_tokens=128"]
RUNS = [[], ["optimizer.lr=3e-3"], ["method=fgm", "optimizer.lr=1e-2"]]
"""Of one model and seed, as soups are meant for."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The best of each run."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for number, options in enumerate(RUNS):
            train(patch, folder / str(number), *ONE_EPOCH, *options)
    return [folder / str(number) / "checkpoints" / "best.ckpt" for number in range(len(RUNS))]


def cook(monkeypatch: pytest.MonkeyPatch, output: Path, *args: object) -> dict[str, Any]:
    """Run the command; returns soup.json."""
    command = ["lit-adv", "soup", *map(str, args), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    return json.loads((output / "soup.json").read_text())


def refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    output: Path,
    *args: object,
) -> str:
    """Run what must be refused; returns the one line that it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cook(monkeypatch, output, *args)
    assert end.value.code == 1 and not output.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def weights(path: Path) -> Tensors:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def figures(checkpoint: Path) -> dict[str, Any]:
    """The report of the run that wrote the checkpoint."""
    return json.loads((checkpoint.parents[1] / "results.json").read_text())


def test_a_uniform_soup_is_the_mean_of_all(
    monkeypatch: pytest.MonkeyPatch, checkpoints: list[Path], tmp_path: Path
):
    report = cook(monkeypatch, tmp_path / "soup", *checkpoints, "--kind", "uniform")
    assert report["kind"] == "uniform" and report["monitor"] == "val/accuracy"
    assert [member["kept"] for member in report["members"]] == [True] * 3
    members = [weights(path) for path in checkpoints]
    soup = weights(tmp_path / "soup" / "soup.ckpt")
    for name, weight in soup.items():
        mean = sum(member[name].double() for member in members) / 3
        assert isinstance(mean, torch.Tensor)
        torch.testing.assert_close(weight.double(), mean, rtol=1e-6, atol=1e-7)
    exported = load_file(tmp_path / "soup" / "export" / "model.safetensors")
    same(exported, {name: soup[f"task.network.{name}"] for name in exported})
    classify = pipeline("text-classification", str(tmp_path / "soup" / "export"), device="cpu")
    (answer,) = classify(["the plot was not good"])
    assert answer["label"] in ("blame", "praise")
    assert {path.name for path in (tmp_path / "soup").iterdir()} == {
        "soup.ckpt", "soup.json", "export",
    }  # fmt: skip


@pytest.mark.parametrize("monitor", ["val/loss", "val/mcc"])
def test_a_greedy_soup_is_no_worse_than_its_best_member(
    monitor: str, monkeypatch: pytest.MonkeyPatch, checkpoints: list[Path], tmp_path: Path
):
    report = cook(monkeypatch, tmp_path / "soup", *checkpoints, "--monitor", monitor)
    name = monitor.removeprefix("val/")
    runs = [figures(path)["val"][name] for path in checkpoints]
    assert [member[monitor] for member in report["members"]] == pytest.approx(runs, abs=1e-6)
    better = min if name == "loss" else max
    assert report["val"][name] == better(report["val"][name], *runs)
    assert report["members"][runs.index(better(runs))]["kept"]
    kept = [path for path, m in zip(checkpoints, report["members"], strict=True) if m["kept"]]
    again = cook(monkeypatch, tmp_path / "again", *kept, "--kind", "uniform")
    assert again["val"] == report["val"] and again["test"] == report["test"]


def test_a_soup_of_one_checkpoint_is_worth_what_its_run_said(
    monkeypatch: pytest.MonkeyPatch, checkpoints: list[Path], tmp_path: Path
):
    report = cook(monkeypatch, tmp_path / "soup", checkpoints[2])
    for split in ("val", "test"):
        assert report[split] == pytest.approx(figures(checkpoints[2])[split], abs=1e-6)
    same(weights(tmp_path / "soup" / "soup.ckpt"), weights(checkpoints[2]))
    twice = cook(monkeypatch, tmp_path / "twice", tmp_path / "soup" / "soup.ckpt", checkpoints[2])
    assert twice["test"] == report["test"]  # a soup may go into another


def test_a_figure_that_is_not_a_number_is_null_in_the_report(
    monkeypatch: pytest.MonkeyPatch, checkpoints: list[Path], tmp_path: Path
):
    path = tmp_path / "broken.ckpt"
    broken = torch.load(checkpoints[0], weights_only=True)
    broken["state_dict"]["task.network.classifier.bias"].fill_(torch.nan)
    torch.save(broken, path)
    options = ["--monitor", "val/loss"]
    report = cook(monkeypatch, tmp_path / "soup", path, checkpoints[1], *options)
    assert [member["kept"] for member in report["members"]] == [False, True]
    assert report["members"][0]["val/loss"] is None


# ---- refusals ------------------------------------------------------------------------------------


def test_what_is_no_checkpoint_or_no_metric_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoints: list[Path],
    tmp_path: Path,
):
    (tmp_path / "words.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    for args, said in (
        ([tmp_path / "nowhere.ckpt"], "no such file"),
        ([tmp_path / "words.ckpt"], "not a whole checkpoint"),
        ([tmp_path / "foreign.ckpt"], "something else than lit_adv"),
        (["--monitor", "val/beauty"], "monitor=val/beauty: no such metric; choose one of val/loss"),
        (["--monitor", "test/loss"], "monitor=test/loss: no such metric"),
    ):
        line = refused(monkeypatch, capsys, tmp_path / "soup", checkpoints[0], *args)
        assert said in line


@pytest.mark.parametrize(
    "options, said",
    [
        (["model.width=32"], "weights of another model"),
        (["method=tavat"], "table"),
        (["data.seed=1"], "data.seed=1"),  # as many word pieces, but others
    ],
)
def test_a_checkpoint_of_another_model_or_other_data_is_refused(
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoints: list[Path],
    tmp_path: Path,
):
    train(monkeypatch, tmp_path / "other", *ONE_EPOCH, *options)
    other = tmp_path / "other" / "checkpoints" / "best.ckpt"
    assert said in refused(monkeypatch, capsys, tmp_path / "soup", checkpoints[0], other)


def test_a_soup_is_nothing_to_resume_from(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoints: list[Path],
    tmp_path: Path,
):
    cook(monkeypatch, tmp_path / "soup", checkpoints[0])
    path = shutil.copy(tmp_path / "soup" / "soup.ckpt", tmp_path / "a.ckpt")
    line = refusal(monkeypatch, capsys, tmp_path / "run", *ONE_EPOCH, f"ckpt_path={path}")
    assert line.startswith(f"ckpt_path={path}: ")
