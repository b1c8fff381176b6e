"""`task=...`, from the command line: every kind trains, is tested, exported and goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from commandline import refusal, train
from kinds.tables import write

SMALL = [
    "data.batch_size=8",
    "model.width=16",
    "model.heads=2",
    "model.max_tokens=64",
    "model.vocabulary=300",
    "model.dropout=0.1",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "scheduler=constant",
]
KINDS: dict[str, tuple[list[str], str, str]] = {
    "token_classification": (["method=freelb"], "entity_f1", "TokenClassification"),
    "multi_label": (["method=smart", "model.drop_token=0.1"], "micro_f1", "SequenceClassification"),
    "multiple_choice": (["method=fgm", "flood=individual", "flood.b=0.1"], "mcc", "MultipleChoice"),
    "causal_lm": (["method=noise", "task.prompt=prompt"], "perplexity", "CausalLM"),
    "contrastive": (["method=pgd", "task.similarity=score", "task.loss=flat_nce"], "spearman", ""),
}


def _arguments(tmp_path: Path, kind: str, *others: str) -> list[str]:
    path = write(tmp_path / kind, kind)
    data = ["data=local", f"data.path={path}", "data.text_pair=null"]
    return [*SMALL, *data, f"task={kind}", *KINDS[kind][0], *others]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_trains_is_tested_exported_and_goes_on(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    _, metric, architecture = KINDS[kind]
    whole, part, on = (tmp_path / name for name in ("whole", "part", "on"))
    found = train(monkeypatch, whole, *_arguments(tmp_path, kind))
    assert metric in found["test"] and found["test"].keys() == found["val"].keys()
    train(monkeypatch, part, *_arguments(tmp_path, kind, "trainer.max_epochs=1"))
    last = part / "checkpoints/last.ckpt"
    train(monkeypatch, on, *_arguments(tmp_path, kind, f"ckpt_path={last}"))
    assert all(torch.equal(w, _weights(on)[name]) for name, w in _weights(whole).items())

    auto = f"AutoModelFor{architecture}" if architecture else "AutoModel"
    network = getattr(transformers, auto).from_pretrained(whole / "export")
    best = torch.load(whole / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, best[f"task.network.{name}"]), name


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_and_accordance_serve_every_kind(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    others = ["peft=lora", "callbacks=[default,accordance]", "trainer.max_epochs=1"]
    plain = [argument for argument in others if kind != "multiple_choice" or "peft" not in argument]
    found: dict[str, Any] = train(
        monkeypatch, tmp_path / "run", *_arguments(tmp_path, kind, *plain)
    )
    assert found["train"]["steps"] == 3
    assert (tmp_path / "run/export").is_dir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["task=token_classification"], "task.words=tokens: no such column in the train split"),
        (["task=causal_lm", "model.head_init=closed_form"], "model.head_init=closed_form: for ta"),
        (["task=causal_lm", "attack=textfooler"], "attack=textfooler: for task=auto"),
        (["task=causal_lm", "data=digits"], "task=causal_lm: for texts, and the data are images"),
        (["task.class_weights=[1]"], "task.class_weights=[1.0]: needs 2 numbers from 0 up"),
        (["task.class_weights=even"], "task.class_weights=even"),
        (["task.label_smoothing=1"], "task.label_smoothing=1"),
        (["task=contrastive", "task.temperature=0"], "task.temperature=0: needs to be above 0"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    sizes = [] if "data=digits" in arguments else ["data.train_size=48"]
    small = [argument for argument in SMALL if "scheduler" not in argument]
    said = refusal(monkeypatch, capsys, tmp_path / "run", *small, *arguments, *sizes)
    assert said.startswith(says), said


def test_class_weights_and_smoothing_are_the_losses_that_are_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    sizes = ["data.train_size=48", "data.validation_size=16", "data.test_size=16"]
    options = [*SMALL, *sizes, "trainer.max_epochs=1", "data.max_length=64"]
    plain = train(monkeypatch, tmp_path / "plain", *options)
    even = train(monkeypatch, tmp_path / "even", *options, "task.class_weights=[1,1]")
    other = train(
        monkeypatch,
        tmp_path / "other",
        *options,
        "task.class_weights=balanced",
        "task.label_smoothing=0.2",
    )
    assert plain["test"] == even["test"] and plain["test"]["loss"] != other["test"]["loss"]
