"""Every method x flood x proximal trains, is finite, and resumes to the last bit."""

from functools import cache
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from testbed import batches, bert, classify
from torch.utils.data import DataLoader

from lit_adv import config
from lit_adv.finetuner import FineTuner
from lit_adv.run import build


def choices(group: str) -> list[str]:
    folder = config.folder() / group
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml"))


@cache
def composed(method: str, flood: str, proximal: str):
    overrides = [f"method={method}", f"flood={flood}", f"proximal={proximal}", "output_dir=."]
    overrides += ["optimizer.lr=0.01"] + (["flood.b=0.69"] if flood != "none" else [])
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        return compose("train", overrides)


class StopAfterFirstEpoch(L.Callback):
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


def fit(
    method: str, flood: str, proximal: str, *, ckpt: Path | None = None, stop: bool = False
) -> tuple[L.Trainer, FineTuner]:
    torch.manual_seed(0)
    module = build(composed(method, flood, proximal), classify(bert()))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        min_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[StopAfterFirstEpoch()] if stop else [],
    )
    data = DataLoader(batches(count=2), batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer.fit(module, data, data, ckpt_path=ckpt)
    return trainer, module


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.parametrize("proximal", choices("proximal"))
@pytest.mark.parametrize("flood", choices("flood"))
@pytest.mark.parametrize("method", choices("method"))
def test_it_trains_is_finite_and_resumes(method: str, flood: str, proximal: str, tmp_path: Path):
    trainer, whole = fit(method, flood, proximal)
    assert trainer.global_step == 4
    for name, value in trainer.callback_metrics.items():
        assert value.isfinite(), name
    before = dict(classify(bert()).named_parameters())
    after = dict(whole.task.named_parameters())
    assert all(weight.isfinite().all() for weight in after.values())
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())

    half, _ = fit(method, flood, proximal, stop=True)
    assert half.global_step == 2
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, rest = fit(method, flood, proximal, ckpt=tmp_path / "half.ckpt")
    assert resumed.global_step == 4
    for name, weight in rest.task.named_parameters():
        assert torch.equal(weight, after[name]), name
