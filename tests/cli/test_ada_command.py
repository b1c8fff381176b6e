"""`python train.py flood=ada`: the models that train first, and all that may be wrong with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commandline import SMALL, refusal, train
from testbed import same
from torch import Tensor

from lit_adv import auxiliary

ADA = [*SMALL, "model.dropout=0.1", "trainer.max_epochs=1", "flood=ada", "flood.folds=2"]


def end(folder: Path) -> dict[str, Tensor]:
    """The last weights of a run, and its levels."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {**checkpoint["state_dict"], **checkpoint["lit_adv"]["flood"]}


def test_the_main_training_draws_as_without_auxiliary_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    train(monkeypatch, tmp_path / "ada", *ADA, "flood.gamma=1", "method=infobert")
    train(monkeypatch, tmp_path / "none", *ADA[:-1], "flood=none", "method=infobert")
    found = end(tmp_path / "ada")
    same(found.pop("levels"), torch.zeros(48))
    same(found, end(tmp_path / "none"))


def test_a_run_from_the_losses_of_another_is_the_same_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    train(monkeypatch, tmp_path / "first", *ADA)
    file = tmp_path / "first" / auxiliary.FILE
    monkeypatch.setattr("lit_adv.run.plain", None)
    train(monkeypatch, tmp_path / "again", *ADA, f"flood.losses={file}")
    same(end(tmp_path / "again"), end(tmp_path / "first"))
    assert end(tmp_path / "first")["levels"].unique().numel() > 8
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert auxiliary.FILE in names and not {"fold_0.pt", "fold_1.pt", "lightning_logs"} & names


@pytest.mark.parametrize(
    "options, said",
    [
        (["flood.folds=49"], "flood.folds=49: more than the 48 training examples"),
        (["flood.gamma=1.5"], "flood.gamma=1.5: needs to lie in [0, 1]"),
        (["flood.losses=nowhere.pt"], "flood.losses=nowhere.pt: no such file"),
        (["update=alternate"], "flood=Ada: with update=alternate both would turn steps uphill"),
    ],
)
def test_it_is_refused_in_one_line(
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    assert refusal(monkeypatch, capsys, tmp_path / "run", *ADA, *options).startswith(said)


Edit = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    "edit, said",
    [(lambda state: state.clear(), "no levels"), (lambda s: s.update(levels=torch.ones(40)), "40")],
    ids=["none", "of other data"],
)
def test_a_checkpoint_without_levels_for_these_examples_is_refused(
    edit: Edit,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    train(monkeypatch, tmp_path / "run", *ADA[:-2])
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    edit(checkpoint["lit_adv"]["flood"])
    torch.save(checkpoint, tmp_path / "half.ckpt")
    options = [*ADA, f"ckpt_path={tmp_path / 'half.ckpt'}"]
    line = refusal(monkeypatch, capsys, tmp_path / "rest", *options)
    assert line.startswith("ckpt_path=") and said in line


def test_a_mistake_elsewhere_is_said_before_the_auxiliary_models_train(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr("lit_adv.run.plain", None)
    options = [*ADA, "callbacks=swa", "callbacks.averaging.start=2"]
    assert "start=2" in refusal(monkeypatch, capsys, tmp_path / "run", *options)
