"""`peft=lora`, from the command line: what trains, what checkpoints hold, what is exported."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import SMALL, refusal, train
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lit_adv.attacks.source import load
from lit_adv.cli.main import main

LORA = [*SMALL, "peft=lora", "peft.r=2", "optimizer.lr=1e-2"]


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def _trained(name: str) -> bool:
    return "lora_" in name or "modules_to_save.default" in name


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft itself
def test_checkpoints_hold_adapters_only_and_exports_answer_as_the_run_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = train(monkeypatch, tmp_path / "run", *LORA, "method=fgm", "seed=3")
    network = {
        name.removeprefix("task.network."): weight
        for name, weight in _weights(tmp_path / "run/checkpoints/best.ckpt").items()
        if name.startswith("task.network.")
    }
    assert network and {n for n in network if not _trained(n)} == {"trained_beside"}
    assert any("classifier" in name for name in network)

    texts = ["the soup was not good", "i liked the view"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run/export")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/export")
    assert not any("lora" in name for name in whole.state_dict())
    answers = whole(**batch).logits

    source = load(tmp_path / "run/checkpoints/best.ckpt")  # built anew, adapters put in
    torch.testing.assert_close(source.network.eval()(**batch).logits, answers)
    base: Any = source.network.unload()  # pyright: ignore  (as it was before any adapter)
    again = PeftModel.from_pretrained(base, tmp_path / "run/adapter").eval()
    torch.testing.assert_close(again(**batch).logits, answers)
    assert found["peft"] == "lora"


@pytest.mark.parametrize(
    "pieces",
    [
        ["method=freelb", "mask=child_f", "proximal=mbpp", "proximal.switch=0"],
        ["method=smart", "update=awp", "proximal=vbpp"],
        ["method=rdrop", "method.dropout=0.1", "callbacks=[default,accordance]"],
    ],
)
def test_pieces_act_on_what_trains_and_a_run_that_goes_on_ends_alike(
    pieces: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    part = tmp_path / "part"
    train(monkeypatch, part, *LORA, *pieces, "trainer.max_epochs=1", "scheduler=constant")
    train(monkeypatch, tmp_path / "constant", *LORA, *pieces, "scheduler=constant")
    kept = part / "checkpoints/last.ckpt"
    train(monkeypatch, tmp_path / "on", *LORA, *pieces, "scheduler=constant", f"ckpt_path={kept}")
    ends = (_weights(tmp_path / run / "checkpoints/last.ckpt") for run in ("constant", "on"))
    one, other = ends
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    moved = _weights(kept)
    assert any(not torch.equal(moved[name], one[name]) for name in one if _trained(name))


def test_what_stands_still_is_not_kept_by_references(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    train(monkeypatch, tmp_path / "run", *LORA, "proximal=mbpp")
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    sizes = [w.numel() for name, w in content["state_dict"].items() if _trained(name)]
    reference = content["lit_adv"]["proximal"]["weights"]
    assert sum(weight.numel() for weight in reference.values()) == sum(sizes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["peft.r=0"], "peft.r=0: needs to be at least 1"),
        (["peft.target_modules=[nothing]"], "peft.target_modules=.*"),
        (["data=digits", "model=mlp"], "peft=lora: for texts; choose peft=none"),
        (["peft.rank=4"], "peft.rank: unknown key"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    given = ["peft=lora", *arguments] if "model=mlp" in arguments else [*LORA, *arguments]
    assert re.match(says, refusal(monkeypatch, capsys, tmp_path / "run", *given))


def test_the_mean_of_factors_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    train(monkeypatch, tmp_path / "run", *LORA, "trainer.max_epochs=1")
    kept = str(tmp_path / "run/checkpoints/last.ckpt")
    arguments = ["lit-adv", "soup", kept, kept, "--output", str(tmp_path / "soup")]
    monkeypatch.setattr(sys, "argv", arguments)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main()
    assert "peft=lora: the mean of factors" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["seed=4", "model.init=he", "model.embedding_norm=2.0"])
def test_adapters_are_loaded_beside_no_other_weights(
    other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    train(monkeypatch, tmp_path / "run", *LORA, "trainer.max_epochs=1")
    kept = tmp_path / "run/checkpoints/last.ckpt"
    said = refusal(monkeypatch, capsys, tmp_path / "on", *LORA, other, f"ckpt_path={kept}")
    assert said.startswith("ckpt_path: the weights that its adapters were trained beside")


def test_places_keep_their_names_and_what_goes_by_hidden_states_finds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    quick = [*LORA, "trainer.max_epochs=1"]
    at = "model.at=bert.embeddings.word_embeddings"
    named = train(monkeypatch, tmp_path / "at", *quick, "method=fgm", at)
    asked = train(monkeypatch, tmp_path / "asked", *quick, "method=fgm")
    assert named["test"] == asked["test"]
    split = "method.split=bert.encoder.layer.0"
    train(monkeypatch, tmp_path / "yopo", *quick, "method=yopo", split)
    train(monkeypatch, tmp_path / "infobert", *quick, "method=infobert", "data.batch_size=8")
    train(monkeypatch, tmp_path / "attack", *quick, "attack=textfooler", "attack.n=4")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *("lit-adv", "attack", str(tmp_path / "asked/checkpoints/best.ckpt")),
            *("attack=deepwordbug", "n=4", f"attack.output={tmp_path / 'attacked'}"),
        ],
    )
    main()
    assert list((tmp_path / "attacked").rglob("attack.json"))
