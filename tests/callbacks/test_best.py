"""The best checkpoint of a training that is resumed is that of the whole."""

from pathlib import Path

import lightning as L
import pytest
import torch
from testbed import Stream, batches, bert, classify, sgd, without_lightnings_own_warnings

from lit_adv.callbacks.best import Best
from lit_adv.methods.finetune import FineTune

WORTH = [0.7, 0.5, 0.6, 0.65]


class Judge(L.Callback):
    """Says what the weights of each epoch are worth."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("val/loss", torch.tensor(WORTH[trainer.current_epoch]))


def train(folder: Path, epochs: int, resume: Path | None = None) -> Best:
    torch.manual_seed(0)
    best = Best(folder, filename="best", monitor="val/loss", enable_version_counter=False)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Judge(), best],
    )  # fmt: skip
    with without_lightnings_own_warnings():
        trainer.fit(FineTune(classify(bert().float()), sgd()), Stream(batches(2)), ckpt_path=resume)
    trainer.save_checkpoint(folder / "last.ckpt")
    return best


def epoch(path: str | Path) -> int:
    return torch.load(path, weights_only=True)["epoch"]


def test_it_goes_along_into_another_folder(tmp_path: Path):
    train(tmp_path / "before", 3)
    best = train(tmp_path / "here", 4, tmp_path / "before" / "last.ckpt")
    assert Path(best.best_model_path) == tmp_path / "here" / "best.ckpt"
    assert epoch(best.best_model_path) == 1
    assert best.best_model_score == pytest.approx(0.5)

    (tmp_path / "before").rename(tmp_path / "moved")
    best = train(tmp_path / "again", 4, tmp_path / "moved" / "last.ckpt")
    assert epoch(tmp_path / "again" / "best.ckpt") == 1
    assert best.best_model_score == pytest.approx(0.5)
    with pytest.warns(UserWarning, match="exists and is not empty"):
        best = train(tmp_path / "moved", 4, tmp_path / "moved" / "last.ckpt")  # where it lies
    assert epoch(tmp_path / "moved" / "best.ckpt") == 1


@pytest.mark.parametrize("found", ["nothing", "another"])
def test_where_it_is_not_there_that_is_said(tmp_path: Path, found: str):
    train(tmp_path / "before", 3)
    path = tmp_path / "before" / "best.ckpt"
    if found == "nothing":
        path.unlink()
    else:  # as a training leaves it that has gone on from there
        saved = torch.load(path, weights_only=True)
        for state in saved["callbacks"].values():
            state["best_model_score"] = torch.tensor(0.4)
        torch.save(saved, path)
    with pytest.warns(UserWarning, match="the best checkpoint of the epochs before, .* is not th"):
        best = train(tmp_path / "here", 4, tmp_path / "before" / "last.ckpt")
    assert epoch(tmp_path / "here" / "best.ckpt") == 3
    assert best.best_model_score == pytest.approx(0.65)
