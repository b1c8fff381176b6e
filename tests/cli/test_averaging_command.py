"""`callbacks=ema` and `callbacks=swa`: the report and the export are of the means."""

from pathlib import Path

import pytest
import torch
from commandline import SMALL, refusal, train
from safetensors.torch import load_file
from testbed import same


@pytest.mark.parametrize("chosen", ["tavat", "infobert"])
def test_the_export_and_the_figures_are_the_best_means(
    chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    means = ["callbacks=ema", "callbacks.averaging.decay=0.5", "update=sam", f"method={chosen}"]
    results = train(monkeypatch, tmp_path / "run", *SMALL, *means, "monitor=val/loss")
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    exported = load_file(tmp_path / "run" / "export" / "model.safetensors")
    same(exported, {name: best["state_dict"][f"task.network.{name}"] for name in exported})
    name = "task.network.classifier.weight"
    assert not torch.equal(best["state_dict"][name], best["current_model_state"][name])
    plain = train(monkeypatch, tmp_path / "plain", *SMALL, *means[2:], "monitor=val/loss")
    for split in ("val", "test"):
        assert results[split]["loss"] != plain[split]["loss"]


@pytest.mark.parametrize(
    "option, said",
    [
        ("callbacks=swa callbacks.averaging.start=1", "start=1: a share of the steps, in [0, 1)"),
        ("callbacks=swa callbacks.averaging.every_n_steps=0", "every_n_steps=0: needs to be at"),
        ("callbacks=ema callbacks.averaging.decay=1.5", "decay=1.5"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(
    option: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    line = refusal(monkeypatch, capsys, tmp_path / "run", *SMALL, *option.split())
    assert line.startswith("callbacks: ") and said in line
