"""Bad input ends before training with one line that names the key, the value and the remedy."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from commandline import SMALL, refusal, train


class Poison(L.Callback):
    """Puts a NaN into a weight in the middle of the second epoch."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)


Rows = list[dict[str, object]]
GOOD: Rows = [{"text": f"row {n}", "label": n % 2, "score": n / 2} for n in range(20)]


def folder_of(path: Path, rows: Rows, name: str = "train.jsonl") -> Path:
    path.mkdir(exist_ok=True)
    (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=smrt"], ["method=smrt", "no such choice", "fgm", "smart"]),
        (["data=reveiws"], ["data=reveiws", "no such choice", "reviews", "sst2"]),
        (["method.step_sise=1", "method=pgd"], ["method.step_sise", "unknown key"]),
        (["+method.step_sise=1", "method=pgd"], ["method.step_sise=1", "method.step_size"]),
        (["method=freelb", "method.steps=0"], ["method.steps=0", "at least 1", "method=finetune"]),
        (["method=fgm", "method.radius=-1"], ["method.radius=-1", "at least 0"]),
        (["method=smart", "method.noise_std=-1e-5"], ["method.noise_std=-1e-05", "at least 0"]),
        (["flood=fixed", "flood.b=-0.1"], ["flood.b=-0.1", "at least 0"]),
        (["flood=individual", "flood.b=nan"], ["flood.b=nan", "at least 0"]),
        (["flood=fixed", "flood.b=inf"], ["flood.b=inf", "finite"]),
        (["flood=fixed", "flood.b=0.7"], ["flood.b=0.7", "0.693", "lower"]),
        (["proximal=vbpp", "proximal.steps=1"], ["proximal.steps=1", "at least 2"]),
        (["proximal=mbpp", "proximal.beta=1.5"], ["proximal.beta=1.5", "[0, 1]"]),
        (["data=local", "data.path=nowhere"], ["data.path=nowhere", "no such file"]),
        (["data=local"], ["data.path", "needs a value"]),
        (["data.label_noise=0.9"], ["data.label_noise=0.9", "[0, 0.5]"]),
        (["seed=abc"], ["seed=abc", "whole number"]),
        (["data.seed=abc"], ["data.seed=abc", "whole number"]),
        (["+trainer.overfit_batches=1"], ["overfit_batches=1", "data.limit"]),
        (["data.batch_size=0"], ["data.batch_size=0", "at least 1"]),
        (["trainer.accumulate_grad_batches=0"], ["accumulate_grad_batches=0", "at least 1"]),
        (["trainer.gradient_clip_val=-1"], ["gradient_clip_val=-1", "positive"]),
        (["scheduler.name=bumpy"], ["scheduler.name=bumpy"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1", "at least 0"]),
        (["model.at=bert.nothing"], ["model.at=bert.nothing", "bert.embeddings.word_embeddings"]),
        (["model=pretrained", "model.name=no/where/at/all"], ["model.name=no/where/at/all"]),
        (["ckpt_path=nothing.ckpt"], ["ckpt_path=nothing.ckpt", "no such file"]),
        (["optimized_metric=val/beauty"], ["optimized_metric=val/beauty", "test/accuracy"]),
        (["monitor=test/loss"], ["monitor=test/loss", "val/accuracy"]),
    ],
)
def test_it_is_refused_in_one_line(
    overrides: list[str],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    line = refusal(monkeypatch, capsys, tmp_path / "run", *choosing_first(overrides))
    for part in said:
        assert part in line
    assert not (tmp_path / "run" / "results.json").exists()


def choosing_first(overrides: list[str]) -> list[str]:
    """The small run's options, but those that the chosen groups do not have."""
    data = any(o.startswith("data=") for o in overrides)
    model = any(o.startswith("model=") for o in overrides)
    skip = ("data.train", "data.val", "data.test") if data else ()
    return [
        o for o in SMALL if not o.startswith((*skip, *(("model.",) if model else ())))
    ] + overrides


LOCAL = [option for option in SMALL if not option.startswith("data.")] + ["data=local"]


@pytest.mark.parametrize(
    ("rows", "overrides", "said"),
    [
        (GOOD, ["data.text=body"], ["data.text=body", "no such column", "label, score"]),
        (GOOD, ["data.label=mood"], ["data.label=mood", "no such column", "text"]),
        (GOOD, ["data.text_pair=other"], ["data.text_pair=other", "no such column"]),
        (GOOD, ["data.validation_size=1"], ["data.validation_size=1", "(0, 1)"]),
        (
            [*GOOD, {"text": "x", "label": 7, "score": 1}],
            ["data.label_names=[no,yes]"],
            ["row 21", "7", "no, yes"],
        ),
        (
            [*GOOD, {"text": "x", "label": 1, "score": None}],
            ["data.label=score", "data.regression=true"],
            ["row 21", "None", "a number"],
        ),
        (GOOD, ["data.label=score"], ["data.label=score", "row 1", "data.regression=true"]),
        ([{"text": "a", "label": -1}] * 9, [], ["data.label=label", "-1", "no class index"]),
        (GOOD[:1], [], ["split is empty"]),
    ],
)
def test_unusable_rows_are_named(
    rows: Rows,
    overrides: list[str],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    path = folder_of(tmp_path / "data", rows)
    options = [*LOCAL, f"data.path={path}", *overrides]
    line = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.jsonl", "", "empty"),
        ("train.jsonl", "{'not': json", "cannot be read as json"),
        ("train.txt", "hello", "no training file"),
    ],
)
def test_unusable_files_are_named(
    name: str,
    content: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content)
    options = [*LOCAL, f"data.path={tmp_path / 'data'}"]
    line = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    assert "data.path" in line and said in line


def test_an_unknown_choice_is_answered_with_those_there_are_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    line = refusal(monkeypatch, capsys, tmp_path / "run", "proximal=vbp")
    assert line == "proximal=vbp: no such choice; choose one of mbpp, none, vbpp"


def test_a_checkpoint_of_another_model_or_a_truncated_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    train(monkeypatch, tmp_path / "run", *SMALL)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    options = [*SMALL, "model.width=32", f"ckpt_path={last}"]
    line = refusal(monkeypatch, capsys, tmp_path / "wide", *options)
    assert "another model" in line and "(16" in line and "(32" in line

    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(last.read_bytes()[:5000])
    line = refusal(monkeypatch, capsys, tmp_path / "a", *SMALL, f"ckpt_path={broken}")
    assert "not a whole checkpoint" in line

    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    line = refusal(monkeypatch, capsys, tmp_path / "b", *SMALL, f"ckpt_path={foreign}")
    assert "something else than lit_adv" in line


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    conf = tmp_path / "conf" / "callbacks"
    conf.mkdir(parents=True)
    (conf / "poison.yaml").write_text("poison: {_target_: test_bad_input.Poison}\n")
    options = ["--config-dir", str(tmp_path / "conf"), *SMALL, "callbacks=poison"]
    line = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    assert "not finite at optimizer step 4 (epoch 1, batch 1)" in line
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert f"the last good checkpoint is {last}" in line
    weights = torch.load(last, weights_only=True)["state_dict"]
    assert all(weight.isfinite().all() for weight in weights.values())
    assert (tmp_path / "run" / "curves.png").exists()
