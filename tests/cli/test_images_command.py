"""Images, from the command line."""

from pathlib import Path

import pytest
import torch
from commandline import refusal, train
from safetensors.torch import load_file
from transformers import ViTForImageClassification

QUICK = [
    "data=digits",
    "data.limit=96",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
]
LINF = ["method.norm=linf", "method.radius=0.1", "method.step_size=0.05"]


@pytest.mark.parametrize(
    ("model", "method"),
    [
        ("mlp", ["method=pgd", *LINF]),
        ("convolutional", ["method=free_at", *LINF]),
        ("convolutional", ["method=yopo", *LINF, "model.init=he"]),
        (
            "mlp",
            [
                "method=fgsm",
                "flood=fixed",
                "flood.b=0.1",
                "model.head_init=closed_form",
                "model.width=8",
            ],
        ),
        ("vit", ["method=smart", "model.width=16", "model.heads=2"]),
    ],
)
def test_images_train_are_tested_and_exported(
    model: str, method: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = train(monkeypatch, tmp_path / "run", *QUICK, f"model={model}", *method)
    assert found["data"] == "digits" and 0 <= found["test"]["accuracy"] <= 1
    kept = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    exported = load_file(tmp_path / "run/export/model.safetensors")
    if model == "vit":  # in the names of transformers' files
        exported = ViTForImageClassification.from_pretrained(tmp_path / "run/export").state_dict()
    assert exported.keys() == {k.removeprefix("task.network.") for k in kept if "network" in k}
    assert all(torch.equal(kept[f"task.network.{name}"], w) for name, w in exported.items())


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    options = [*QUICK, "model=mlp", "method=freelb", "scheduler=constant"]
    train(monkeypatch, tmp_path / "whole", *options)
    train(monkeypatch, tmp_path / "part", *options, "trainer.max_epochs=1")
    kept = tmp_path / "part/checkpoints/last.ckpt"
    train(monkeypatch, tmp_path / "on", *options, f"ckpt_path={kept}")
    one, other = (
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "on")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model=tiny"], "model=tiny: for texts, and the data are images; choose model=mlp"),
        (["model=mlp", "data=reviews"], "model=mlp: for images, and the data are texts"),
        (["model=mlp", "method=tavat"], "images: they have no table of words"),
        (["model=mlp", "method=infobert"], "method=infobert: images have no words"),
        (["model=mlp", "method=fgm", "method.at=table"], "images: they have no words"),
        (["model=mlp", "attack=textfooler"], "attack=textfooler: exchanges words"),
        (
            ["model=mlp", "method=fgm", "model.low=0.5"],
            "model.low=0.5, model.high=1.0: a batch has numbers from 0",
        ),
        (["model=vit", "model.patch=0"], "model.patch=0: needs to be at least 1"),
        (["model=mlp", "model.layers=-1"], "model.layers=-1: needs to be at least 1"),
        (["model=vit", "model.patch=3"], "model.patch=3: images of 8 x 8 pixels"),
    ],
)
def test_what_is_no_matter_of_images_ends_in_one_line(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    given = [argument for argument in QUICK if argument.split("=")[0] != "data"]
    said = refusal(monkeypatch, capsys, tmp_path / "run", "data=digits", *given[1:], *arguments)
    assert said.startswith(says), said
