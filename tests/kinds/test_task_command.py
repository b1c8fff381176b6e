"""`task=...`, from the command line: every kind trains, is tested, exported and goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from commandline import refusal, train
from kinds.tables import write

from lit_adv.data.local import Local
from lit_adv.kinds.causal_lm import CausalLM
from lit_adv.models import tiny

SMALL = [
    "data.batch_size=8",
    "model.width=16",
    "model.heads=2",
    "model.max_tokens=128",
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
    found: dict[str, Any] = train(
        monkeypatch, tmp_path / "run", *_arguments(tmp_path, kind, *others)
    )
    assert found["train"]["steps"] == 3
    assert (tmp_path / "run/export").is_dir()
    kept = [name for name in _weights(tmp_path / "run") if name.startswith("task.network.")]
    trained = ("lora_", ".modules_to_save.default.", "task.network.trained_beside")
    assert kept and all(any(part in name for part in trained) for name in kept)


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


def test_adapters_of_a_decoder_learn_answers_to_prompts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """One that was pretrained, and pads at the left."""
    path = write(tmp_path / "rows", "causal_lm")
    data = Local(path=str(path), text_pair=None)
    data.kind = CausalLM(prompt="prompt")
    tokenizer = tiny.train_tokenizer(data.splits, 300, 64)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path / "decoder")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"initializer_range": 0.3}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)
    base = transformers.LlamaForCausalLM(config)
    base.save_pretrained(tmp_path / "decoder")

    rows = ["data=local", f"data.path={path}", "data.text_pair=null", "task=causal_lm"]
    model = ["model=pretrained", f"model.name={tmp_path / 'decoder'}", "task.prompt=prompt"]
    small = [argument for argument in SMALL if not argument.startswith("model.")]
    encoder = transformers.BertLMHeadModel(
        transformers.BertConfig(vocab_size=len(tokenizer), **sizes, num_attention_heads=2)
    )
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    said = refusal(
        *(monkeypatch, capsys, tmp_path / "refused", *small, *rows, "model=pretrained"),
        f"model.name={tmp_path / 'encoder'}",
    )
    assert "it sees the words behind a word" in said
    options = [*small, *rows, *model, "peft=lora", "method=freelb"]
    before = train(monkeypatch, tmp_path / "before", *options, "optimizer.lr=0")
    found = train(
        monkeypatch, tmp_path / "run", *options, "optimizer.lr=1e-2", "trainer.max_epochs=10"
    )
    assert found["test"]["perplexity"] < 0.7 * before["test"]["perplexity"]
    merged = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "run/export").state_dict()
    moved = {name for name, w in base.state_dict().items() if not torch.equal(w, merged[name])}
    assert moved and all("q_proj" in name or "v_proj" in name for name in moved)
