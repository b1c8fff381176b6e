"""Validation losses taken apart: by hand, by brute force, in real trainings of any module."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from matplotlib.figure import Figure
from testbed import (
    METHODS,
    MeanPool,
    Recorder,
    Run,
    Stream,
    batches,
    classify,
    cut,
    fit,
    same,
    sgd,
    weights,
    with_spearman,
    without_lightnings_own_warnings,
)
from torch import Tensor, nn

from lit_adv import config
from lit_adv.callbacks import loss_up_acc_up_picture
from lit_adv.callbacks.loss_up_acc_up import LossUpAccUp
from lit_adv.tasks.regression import Regression

PICTURE = "loss_up_acc_up.png"

LOGGED = [
    f"val/{name}"
    for name in (
        "loss_right",
        "loss_wrong",
        "loss_worst_share",
        "confidence_right",
        "confidence_wrong",
        "calibration",
    )
]

HELD_OUT = [*batches(3, seed=1), *cut(batches(1, seed=2)[0], 1, 3)]


def finetuner(name: str = "finetune") -> Recorder:
    return METHODS[name](classify(MeanPool(width=16, bend=True, dropout=0.2)), sgd(lr=0.5))


def fitted(module: Recorder, *callbacks: L.Callback, **options: Any) -> Run:
    settings = {"epochs": 3, "validation": HELD_OUT, "callbacks": callbacks, **options}
    return fit(module, batches(4), **settings)


def silent(**options: Any) -> LossUpAccUp:
    """Without a picture."""
    return LossUpAccUp(picture=False, **options)


class Plain(L.LightningModule):
    """Automatic optimisation, batches of (x, y), a network under a name of its own."""

    def __init__(self, asked: str = "net") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.asked = asked
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x) if self.asked == "self" else self.net(x), y)
        self.log("val/loss", loss, batch_size=len(y), sync_dist=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Script(L.LightningModule):
    """Its probabilities of the second class are written down, validation by validation."""

    def __init__(self, *chances: list[float]) -> None:
        super().__init__()
        self.chances = torch.tensor(chances, dtype=torch.float64)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        chance = self.chances[self.current_epoch][batch["number"]]
        return torch.stack([1 - chance, chance], 1).log()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.unused.sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        labels = batch.pop("labels")  # as networks that would compute a loss make many do
        assert len(self(batch)) == len(labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def points(count: int, size: int = 5) -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(count)
    return [
        (torch.randn(size, 3, generator=stream), torch.randint(0, 3, (size,), generator=stream))
        for _ in range(count)
    ]


def train(
    module: L.LightningModule, data: Any, held_out: Any, *callbacks: L.Callback, **options: Any
) -> L.Trainer:
    settings = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    torch.manual_seed(0)
    with without_lightnings_own_warnings():
        trainer = L.Trainer(**{**settings, **options}, callbacks=list(callbacks))
        trainer.fit(module, Stream(data), None if held_out is None else Stream(held_out))
    return trainer


# ---- figures -------------------------------------------------------------------------------------


def scripted(folder: Path) -> LossUpAccUp:
    """Ten examples of the second class: first 6 are right, then 8, and two are badly wrong."""
    before, now = [0.6] * 6 + [0.4] * 4, [0.9] * 8 + [0.001] * 2
    data = [{"number": n, "labels": torch.ones_like(n)} for n in torch.arange(10).split(4)]
    callback = LossUpAccUp(worst=0.1)
    train(Script(before, now), data, data, callback, max_epochs=2, default_root_dir=folder)
    return callback


def test_a_loss_that_rises_while_accuracy_rises_is_laid_to_the_wrong_ones(tmp_path: Path):
    callback = scripted(tmp_path)
    before, now = callback.series
    assert before == pytest.approx(
        {
            "step": 3,
            "loss_right": -0.6 * math.log(0.6),
            "loss_wrong": -0.4 * math.log(0.4),
            "loss_worst_share": math.log(0.4) / (6 * math.log(0.6) + 4 * math.log(0.4)),
            "confidence_right": 0.6,
            "confidence_wrong": 0.6,
            "calibration": 0.0,  # sure to 0.6, and 6 of 10 are right
            "accuracy": 0.6,
        },
        abs=1e-6,
    )
    assert now == pytest.approx(
        {
            "step": 6,
            "loss_right": -0.8 * math.log(0.9),
            "loss_wrong": -0.2 * math.log(0.001),
            "loss_worst_share": math.log(0.001) / (8 * math.log(0.9) + 2 * math.log(0.001)),
            "confidence_right": 0.9,
            "confidence_wrong": 0.999,
            "calibration": 0.8 * 0.1 + 0.2 * 0.999,
            "accuracy": 0.8,
        },
        abs=1e-6,
    )
    assert callback.histograms["lowest"] == [[0] * 9 + [6] + [0] * 5, [0] * 9 + [4] + [0] * 5]
    assert callback.histograms["last"] == [[0] * 13 + [8, 0], [0] * 14 + [2]]
    assert loss_up_acc_up_picture.in_words(callback.series, callback.worst) == (
        "loss +0.79 since step 3 while accuracy +20.0 points: "
        "+1.02 from wrong predictions, -0.22 from right ones;\n"
        "the worst 10 % of examples hold 47 % of the loss (then 14)"
    )


class ByHand(L.Callback):
    """The same figures by plain Python, in a pass of its own, and what the module has logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.logged: list[dict[str, float]] = []

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        losses, rights, sure = [], [], []
        for batch in HELD_OUT:
            answers = pl_module(batch).tolist()
            for logits, label in zip(answers, batch["labels"].tolist(), strict=True):
                odds = [math.exp(z) / sum(map(math.exp, logits)) for z in logits]
                losses.append(-math.log(odds[label]))
                rights.append(odds[label] == max(odds))
                sure.append(max(odds))
        n, right = len(losses), [i for i, ok in enumerate(rights) if ok]
        wrong = [i for i, ok in enumerate(rights) if not ok]
        worst = sorted(losses, reverse=True)
        self.rows.append(
            {
                "step": trainer.global_step,
                "loss_right": sum(losses[i] for i in right) / n,
                "loss_wrong": sum(losses[i] for i in wrong) / n,
                "loss_worst_share": (sum(worst[:4]) + 0.8 * worst[4]) / sum(losses),
                "confidence_right": sum(sure[i] for i in right) / len(right),
                "confidence_wrong": sum(sure[i] for i in wrong) / len(wrong),
                "accuracy": len(right) / n,
            }
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.logged.append({name: float(v) for name, v in trainer.callback_metrics.items()})


def test_figures_are_those_of_all_validation_examples():
    callback, by_hand = silent(worst=0.3), ByHand()
    fitted(finetuner(), callback, by_hand, num_sanity_val_steps=1, val_check_interval=2)
    assert [row["step"] for row in callback.series] == [2, 4, 6, 8, 10, 12]
    others = zip(by_hand.rows[1:], by_hand.logged[1:], strict=True)  # after the sanity check
    for row, (wanted, logged) in zip(callback.series, others, strict=True):
        calibration = row.pop("calibration")
        assert row == pytest.approx(wanted, rel=1e-9)
        assert row["loss_right"] + row["loss_wrong"] == pytest.approx(logged["val/loss"], rel=1e-6)
        assert row["accuracy"] == pytest.approx(logged["val/accuracy"])
        assert calibration == pytest.approx(logged["val/calibration_error"], rel=1e-5)
        row["calibration"] = calibration
        assert [row[name[4:]] for name in LOGGED] == pytest.approx([logged[n] for n in LOGGED])


# ---- logits of any module ------------------------------------------------------------------------


def through(module: L.LightningModule, batch: Any) -> Tensor:
    """A pass of its own, which draws."""
    torch.rand(3)
    return module(batch[0] if isinstance(batch, list | tuple) else batch)


@pytest.mark.parametrize("asked, logits", [("net", "net"), ("self", None), ("net", through)])
def test_a_plain_module_of_automatic_optimisation_is_watched(asked: str, logits: Any):
    held_out = points(3, size=7)
    callback, module = silent(logits=logits, labels=1), Plain(asked)
    trainer = train(module, points(4), held_out, callback)
    x, y = (torch.cat(parts) for parts in zip(*held_out, strict=True))
    module.eval()
    with torch.no_grad():
        answer, row = module(x), callback.series[-1]
    loss = row["loss_right"] + row["loss_wrong"]
    assert loss == pytest.approx(float(F.cross_entropy(answer, y)), rel=1e-6)
    assert loss == pytest.approx(float(trainer.callback_metrics["val/loss"]), rel=1e-6)
    assert row["accuracy"] == pytest.approx(float((answer.argmax(1) == y).float().mean()))
    assert [row["step"] for row in callback.series] == [4, 8, 12]


def test_a_part_that_answers_with_more_than_logits_is_asked_for_them():
    task, network = silent(), silent(logits="task.network")
    for callback in (task, network):
        fitted(finetuner(), callback)
    assert task.series == network.series


# ---- training goes on as without it --------------------------------------------------------------


@pytest.mark.parametrize("name", ["finetune", "freelb"])
def test_weights_are_the_same_to_the_last_bit_with_and_without_it(name: str, tmp_path: Path):
    watched, alone, callback = finetuner(name), finetuner(name), LossUpAccUp()
    run = fitted(watched, callback, val_check_interval=1, default_root_dir=tmp_path)
    other = fitted(alone, val_check_interval=1)
    assert len(callback.series) == len(run.gradients) == 12
    same(run.gradients, other.gradients)
    same(weights(watched), weights(alone))
    assert not watched.task._forward_hooks


@pytest.mark.parametrize("logits", ["net", through])
def test_weights_of_a_plain_module_are_the_same_even_if_its_logits_draw(logits: Any):
    ends = []
    for callbacks in ([], [silent(logits=logits, labels=1)]):
        module = Plain()
        train(module, points(4), points(2), *callbacks, val_check_interval=1)
        ends.append(weights(module))
    same(*ends)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_a_resumed_training_has_the_whole_series(tmp_path: Path):
    whole, save = silent(), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run = fitted(finetuner(), whole, save, enable_checkpointing=True)
    path = str(tmp_path / "epoch=0.ckpt")
    saved = torch.load(path, weights_only=True)["callbacks"]["LossUpAccUp"]
    assert saved["series"] == whole.series[:1]
    rest = silent()
    resumed = fitted(finetuner(), rest, seed=1, resume=path)
    same(weights(resumed.module), weights(run.module))
    assert rest.series == whole.series
    assert rest.state_dict() == whole.state_dict()


def test_a_checkpoint_that_is_validated_is_logged_and_takes_nothing_back(tmp_path: Path):
    callback, save = silent(), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run = fitted(finetuner(), callback, save, enable_checkpointing=True)
    series = [dict(row) for row in callback.series]
    path = str(tmp_path / "epoch=0.ckpt")
    with without_lightnings_own_warnings():
        logged = run.trainer.validate(run.module, Stream(HELD_OUT), ckpt_path=path, verbose=False)
    assert callback.series == series
    assert logged[0]["val/loss_wrong"] == pytest.approx(series[0]["loss_wrong"])
    assert logged[0]["val/loss_wrong"] != pytest.approx(series[-1]["loss_wrong"], rel=1e-3)


# ---- several processes ---------------------------------------------------------------------------


class Dealt(Plain):
    """Standing still; of 17 examples the first of two processes has 12, the other 5."""

    def val_dataloader(self) -> Any:
        data, parts = points(17, size=1), self.trainer.world_size
        mine = data if parts == 1 else (data[:12], data[12:])[self.trainer.global_rank]
        return Stream(mine)  # pyright: ignore[reportArgumentType]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_two_processes_with_uneven_parts_log_what_one_does():
    if torch.cuda.is_initialized():
        pytest.skip("a process with CUDA cannot be forked")
    logged = []
    for count in (1, 2):
        strategy = "auto" if count == 1 else "ddp_fork"
        callback = silent(labels=1, worst=0.2)
        options = {"devices": count, "strategy": strategy, "max_epochs": 1}
        trainer = train(Dealt("self"), points(2), None, callback, **options)
        logged.append({name: float(v) for name, v in trainer.callback_metrics.items()})
    one, two = logged
    # Lightning's own mean, val/loss, is another: it halves 17 to 8 examples per process.
    assert [two[name] for name in LOGGED] == pytest.approx([one[name] for name in LOGGED], rel=1e-6)


# ---- pictures ------------------------------------------------------------------------------------


def curve(figure: Figure, panel: int, line: int = 0) -> list[float]:
    return figure.axes[panel].lines[line].get_ydata().tolist()  # pyright: ignore


def test_the_picture_shows_the_series(tmp_path: Path):
    callback = scripted(tmp_path)
    assert (tmp_path / PICTURE).stat().st_size > 20_000
    figure = loss_up_acc_up_picture.draw(callback.series, callback.histograms, callback.worst)
    before, now = callback.series
    loss = [row["loss_right"] + row["loss_wrong"] for row in (before, now)]
    assert curve(figure, 0) == loss
    assert curve(figure, 1) == [before["loss_worst_share"], now["loss_worst_share"]]
    assert curve(figure, 3) == [before["calibration"], now["calibration"]]
    assert curve(figure, 4) == [0.6, 0.8]  # accuracy, on an axis of its own
    told = figure.axes[2].get_legend_handles_labels()[1]
    assert told == [
        "right at step 3 (6)",
        "wrong at step 3 (4)",
        "right at step 6 (8)",
        "wrong at step 6 (2)",
    ]


class Stop(L.Callback):
    """Breaks the training off in the second epoch, inside a validation."""

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **options: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("enough")


@pytest.mark.parametrize("picture", [True, False])
def test_a_training_that_breaks_off_is_drawn_and_no_longer_listened_to(
    picture: bool, tmp_path: Path
):
    module, callback = finetuner(), LossUpAccUp(picture=picture)
    folder = tmp_path / "new"
    with pytest.raises(RuntimeError, match="enough"):
        fitted(module, callback, Stop(), default_root_dir=folder)
    assert len(callback.series) == 1
    assert (folder / PICTURE).exists() == picture
    assert not module.task._forward_hooks


def test_without_a_validation_there_is_no_picture(tmp_path: Path):
    fitted(finetuner(), LossUpAccUp(), validation=None, default_root_dir=tmp_path)
    assert not (tmp_path / PICTURE).exists()


def row(step: int, right: float, wrong: float, accuracy: float) -> dict[str, float]:
    parts = {"loss_right": right, "loss_wrong": wrong, "loss_worst_share": 0.5}
    return {"step": step, "accuracy": accuracy, **parts}


@pytest.mark.parametrize(
    "last, words",
    [
        (row(2, 0.1, 0.2, 0.5), "loss lowest at the last validation, step 2"),
        (row(2, 0.4, 0.4, 0.7), "loss +0.30 since step 1 while accuracy -10.0 points"),
        (row(2, 0.1, math.nan, 0.9), "loss +nan since step 1 while accuracy +10.0 points"),
        (
            row(2, 0.1, 0.6, 0.8),
            "loss +0.20 since step 1 while accuracy +0.0 points: "
            "+0.30 from wrong predictions, -0.10 from right ones;\n"
            "the worst 5 % of examples hold 50 % of the loss (then 50)",
        ),
    ],
)
def test_the_title_says_what_happened(last: dict[str, float], words: str):
    first = row(0, math.nan, 0.0, 0.1)
    assert loss_up_acc_up_picture.in_words([first, row(1, 0.2, 0.3, 0.8), last], 0.05) == words


# ---- what is refused -----------------------------------------------------------------------------


def test_the_configuration_names_the_defaults():
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        node = compose("train", ["callbacks=loss_up_acc_up", "output_dir=."])
    config.check(node)
    callback, default = instantiate(node.callbacks.loss_up_acc_up), LossUpAccUp()
    assert vars(callback).keys() == vars(default).keys()
    for name in ("worst", "picture", "logits", "labels"):
        assert getattr(callback, name) == getattr(default, name)


@pytest.mark.parametrize("worst", [0.0, 1.0, -0.1, math.nan])
def test_a_share_of_none_or_all_is_refused(worst: float):
    with pytest.raises(ValueError, match=rf"worst={worst}: .* in \(0, 1\)"):
        LossUpAccUp(worst=worst)


@with_spearman
def test_regression_is_refused_at_the_sanity_check():
    task = Regression(MeanPool(labels=1))
    module = METHODS["finetune"](task, sgd())
    data = [{**batch, "labels": batch["labels"].double()} for batch in batches(1)]
    with pytest.raises(ValueError, match=r"labels are torch.float64\[4\].* leave the callback out"):
        fit(module, data, validation=data, callbacks=[silent()], num_sanity_val_steps=1)


@pytest.mark.parametrize(
    "asked, options, message",
    [
        ("net", {"logits": "network", "labels": 1}, "logits=network: Plain .* it has net"),
        ("net", {"logits": "net"}, "labels=labels: not in the validation batch"),
        ("net", {"logits": "net", "labels": 2}, "labels=2: not in the validation batch"),
        ("net", {"logits": "net", "labels": 0}, r"labels are torch.float32\[5, 3\], not whole"),
        ("net", {"labels": 1}, r"logits are missing.* logits=NAME"),
        ("net", {"logits": lambda *_: torch.ones(5), "labels": 1}, r"float32\[5\], not \[batch"),
    ],
)
def test_what_is_not_there_is_named(asked: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        train(Plain(asked), points(1), points(1), silent(**options), num_sanity_val_steps=1)


def test_a_part_that_is_missing_is_refused_before_the_first_step():
    module = Plain()
    before = weights(module)
    with pytest.raises(ValueError, match="logits=network"):
        train(module, points(1), points(1), silent(logits="network", labels=1))
    same(weights(module), before)
