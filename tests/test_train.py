"""`python train.py` from command line to report."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from commandline import SMALL, refusal, train
from PIL import Image
from transformers import pipeline

ROOT = Path(__file__).parents[1]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}


class Stop(L.Callback):
    """Ends a training after its first epoch, as if somebody had pulled the plug."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        train(patch, folder, *SMALL, "method=smart", "flood=fixed", "flood.b=0.1", "proximal=mbpp")
    return folder


def test_results_hold_what_was_run_and_what_came_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    results = train(monkeypatch, tmp_path / "run", *SMALL, "method=fgm", "seed=3")
    assert [results[key] for key in ("method", "flood", "proximal", "model", "data", "seed")] == [
        "fgm", "none", "none", "tiny", "reviews", 3,
    ]  # fmt: skip
    metrics = {"loss", "accuracy", "macro_f1", "mcc", "calibration_error"}
    assert results["val"].keys() == results["test"].keys() == metrics
    assert results["train"].keys() == {"seconds", "seconds_per_step", "steps", "peak_memory_mib"}
    assert results["train"]["steps"] == 6
    assert results["versions"]["torch"] == torch.__version__


def test_a_run_leaves_all_its_files(finished: Path):
    for name in (
        "results.json", "metrics.csv", "config.yaml", "curves.png",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "export/model.safetensors",
    ):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    assert not list(finished.rglob("*.part"))


def test_metrics_csv_holds_losses_and_what_shows_that_the_method_is_alive(finished: Path):
    with (finished / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in (
        "train/loss", "val/loss", "perturbation/norm", "flood/share", "proximal/divergence",
    ):  # fmt: skip
        assert [row for row in rows if row.get(name)], name
    norms = [float(row["perturbation/norm"]) for row in rows if row["perturbation/norm"]]
    assert min(norms) > 0


def test_curves_are_a_picture(finished: Path):
    with Image.open(finished / "curves.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_export_loads_in_a_pipeline_and_answers_with_class_names(finished: Path):
    classify = pipeline("text-classification", str(finished / "export"), device="cpu")
    (answer,) = classify(["the plot was not good"])
    assert answer["label"] in ("blame", "praise") and 0.5 <= answer["score"] <= 1


def test_the_same_seed_gives_the_same_run_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    options = [*SMALL, "method=freelb", "model.dropout=0.1"]
    first = train(monkeypatch, tmp_path / "1", *options)
    torch.manual_seed(99)
    second = train(monkeypatch, tmp_path / "2", *options)
    assert first["val"] == second["val"] and first["test"] == second["test"]
    other = train(monkeypatch, tmp_path / "3", *options, "seed=1")
    assert other["test"]["loss"] != first["test"]["loss"]


def test_a_run_resumes_from_its_last_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    options = [*SMALL, "method=smart", "proximal=mbpp"]
    whole = train(monkeypatch, tmp_path / "whole", *options)
    half = [*options, "+trainer.limit_test_batches=1", "callbacks=stop"]
    (tmp_path / "conf" / "callbacks").mkdir(parents=True)
    (tmp_path / "conf" / "callbacks" / "stop.yaml").write_text(
        "stop: {_target_: test_train.Stop}\n"
    )
    train(monkeypatch, tmp_path / "half", "--config-dir", str(tmp_path / "conf"), *half)
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    resumed = train(monkeypatch, tmp_path / "rest", *options, f"ckpt_path={last}")
    assert resumed["train"]["steps"] == whole["train"]["steps"] == 6
    ends = [
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)
        for run in ("whole", "rest")
    ]
    for name, weight in ends[0]["state_dict"].items():
        assert torch.equal(weight, ends[1]["state_dict"][name]), name
    for name, weight in ends[0]["lit_adv"]["proximal"]["weights"].items():
        assert torch.equal(weight, ends[1]["lit_adv"]["proximal"]["weights"][name]), name


def test_pairs_with_numbers_are_a_regression_from_file_to_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    rows = [{"text": f"word{n % 7}", "text_pair": "x", "label": float(n % 7)} for n in range(60)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = [option for option in SMALL if not option.startswith("data.")]
    local = ["data=local", f"data.path={tmp_path / 'all.jsonl'}", "data.regression=true"]
    options = ["method=smart", "proximal=vbpp", "logger=tensorboard"]
    results = train(monkeypatch, tmp_path / "run", *small, *local, *options)
    assert results["test"].keys() == {"loss", "pearson", "spearman", "mse"}
    assert results["test"]["mse"] == pytest.approx(results["test"]["loss"])
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_micro_batches_clipping_and_a_schedule_by_epochs_work_by_trainers_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    options = ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5"]
    options += ["scheduler.interval=epoch", "method=pgd", "method.form=A", "flood=individual"]
    results = train(monkeypatch, tmp_path / "run", *SMALL, *options)
    assert results["train"]["steps"] == 4  # three batches: a window of two, and one of the rest


def test_the_console_script_and_train_py_are_the_same_command(tmp_path: Path):
    commands = {
        "script": [sys.executable, str(ROOT / "train.py")],
        "console": [
            sys.executable, "-c", "from lit_adv.cli.main import main; main()", "train",
        ],
    }  # fmt: skip
    outputs = {
        name: subprocess.run(
            [*command, "method=fgm", "--cfg", "job"],
            capture_output=True, text=True, check=True, cwd=ROOT,
        ).stdout
        for name, command in commands.items()
    }  # fmt: skip
    assert outputs["script"] == outputs["console"]
    assert "lit_adv.methods.fgm.FGM" in outputs["script"]


NEW_METHOD = '''
from lit_adv.finetuner import FineTuner


class Twice(FineTuner):
    """Trains on every batch twice in one step."""

    def __init__(self, task, descent=None, *, weight: float = 0.5):
        super().__init__(task, descent)
        self.weight = weight

    def training_step(self, batch, batch_idx):
        self.accumulate(batch, self.losses(batch), share=1 - self.weight)
        self.descend(batch, self.losses(batch), share=self.weight)
'''


def test_a_new_method_is_one_python_file_and_one_yaml(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "twice.py").write_text(NEW_METHOD)
    (tmp_path / "conf" / "method" / "twice.yaml").write_text("_target_: twice.Twice\nweight: 0.5\n")
    options = ["--config-dir", str(tmp_path / "conf"), *SMALL, "method=twice"]
    done = subprocess.run(
        [
            sys.executable, "train.py", *options,
            f"hydra.run.dir={tmp_path / 'run'}", f"data.cache={tmp_path}",
        ],
        capture_output=True, text=True, cwd=ROOT, env={**ENV, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"method": "twice"' in (tmp_path / "run" / "results.json").read_text()

    monkeypatch.syspath_prepend(tmp_path)
    line = refusal(monkeypatch, capsys, tmp_path / "refused", *options, "+method.wieght=1")
    assert "did you mean method.weight?" in line
