"""flood=auto: plain training to the last bit until the sign changes, then flooded."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from test_resume import Loader
from testbed import (
    FREE,
    METHODS,
    Recorder,
    Run,
    Stream,
    batches,
    bert,
    classify,
    fit,
    same,
    sgd,
    weights,
    without_lightnings_own_warnings,
)
from torch import Tensor

from lit_adv.accordance.readings import Reading
from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.flood.auto import Auto
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.sam import SAM

HELD_OUT = batches(3, seed=9)


def watching(**options: Any) -> GradientAccordance:
    return GradientAccordance(
        **{"against": "both", "batches": 1.0, "every_n_steps": 2, "picture": None, **options}
    )


def heard(flood: Auto, values: Sequence[float], error: float = 0.0, losses: float = 0.4) -> Auto:
    """The flood after readings of these values, every 10 steps."""
    for number, value in enumerate(values):
        flood.note(torch.tensor(losses + 0.1))
        flood.note(torch.tensor(losses - 0.1))
        step, series = 10 * (number + 1), flood.pairs
        flood.hear(Reading(step, number + 1.0, {series: value}, {series: error}))
    return flood


class Switched(Flood):
    """`|L - b| + b`, once it is switched on."""

    def __init__(self, b: float) -> None:
        self._then = Fixed(b)

    def slope(self, loss: Tensor, batch: Any = None) -> Tensor:
        return self._then.slope(loss, batch)


class Switch(L.Callback):
    """Switches a flood on after this step."""

    def __init__(self, flood: Flood, step: int) -> None:
        self._flood, self._step = flood, step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self._step:
            self._flood.of = "batch"


def trained(method: str, flood: Flood, *callbacks: L.Callback, **options: Any) -> Run:
    torch.manual_seed(0)
    build = FREE if method == "free_at" else METHODS[method]
    module = build(classify(bert(dropout=0.1)), sgd(0.3, flood=flood, **options))
    return fit(module, batches(6, seed=3), epochs=3, validation=HELD_OUT, callbacks=callbacks)


# ---- the decision --------------------------------------------------------------------------------


def test_the_level_is_the_mean_training_loss_of_the_window_of_the_change():
    flood = heard(Auto(), [0.3, 0.2])
    assert (flood.level, flood.of, flood.decisions) == (None, None, [])
    flood = heard(Auto(), [0.3, 0.2, -0.1, -0.2])
    assert flood.level == pytest.approx(0.4) and flood.of == "batch"
    assert flood.outcome()["step"] == 30 and flood.outcome()["b"] == flood.level
    assert heard(Auto(factor=0.5), [0.3, -0.1]).level == pytest.approx(0.2)
    assert heard(Auto(b=0.123), [0.3, -0.1]).level == 0.123


def test_losses_of_earlier_windows_do_not_count():
    flood = heard(Auto(), [0.3], losses=0.9)
    assert heard(flood, [-0.1], losses=0.5).level == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "values", "steps"),
    [
        ({"pairs": "cross"}, [-0.9, -0.1, 0.2], [30]),  # the paper's figure
        ({"pairs": "cross"}, [0.9, -0.1, 0.2], [30]),
        ({"pairs": "cross", "direction": "any"}, [0.9, -0.1, 0.2], [20]),
        ({"pairs": "cross", "direction": "pos_to_neg"}, [-0.9, 0.1, -0.2], [30]),
        ({"pairs": "all"}, [0.1, -0.1], [20]),
        ({}, [-0.1, -0.2, -0.3], []),  # never positive: no change
        ({}, [-0.1, 0.2, 0.3], []),
        ({}, [0.1, math.nan, -0.3], [30]),
        ({"warmup": 20}, [0.1, -0.1, 0.2, -0.1], [40]),
        ({"warmup": 20}, [0.1, -0.1, -0.2, -0.1], []),
        ({"once": False}, [0.1, -0.1, -0.2, 0.3, 0.2, -0.1], [20, 40, 60]),
    ],
)
def test_which_changes_count(options: dict[str, Any], values: list[float], steps: list[int]):
    assert [each["step"] for each in heard(Auto(**options), values).decisions] == steps


def test_a_value_within_its_error_has_no_sign():
    assert heard(Auto(hysteresis=2.0), [0.3, -0.15, 0.3, -0.15], error=0.1).level is None
    assert heard(Auto(hysteresis=2.0), [0.3, -0.15, -0.25], error=0.1).outcome()["step"] == 30
    assert heard(Auto(hysteresis=1.0), [0.3, -0.15], error=0.1).outcome()["step"] == 20
    # What is not clear of zero is no beginning either.
    assert heard(Auto(hysteresis=2.0), [0.15, -0.3], error=0.1).level is None


def test_a_valve_that_closes_again_is_plain_training():
    flood = heard(Auto(once=False), [0.1, -0.1, 0.3])
    assert (flood.level, flood.of) == (None, None)
    assert [each["b"] is None for each in flood.decisions] == [False, True]


def test_a_level_at_which_nothing_is_learnt_is_not_taken():
    flood = Auto()
    flood.check(math.log(2))
    with pytest.warns(UserWarning, match=r"changes its sign at step 20, but level 0.700 is not"):
        heard(flood, [0.3, -0.1], losses=0.7)
    assert flood.level is None
    assert heard(flood, [0.2, -0.1], losses=0.4).level == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"^flood.b=0.7: not below 0.693"):
        METHODS["finetune"](classify(bert()), sgd(flood=Auto(b=0.7)))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"pairs": "other"}, "flood.pairs=other: choose one of cross, same, all, validation"),
        ({"direction": "up"}, "direction=up: choose one of"),
        ({"hysteresis": -1.0}, "flood.hysteresis=-1"),
        ({"warmup": -1}, "flood.warmup=-1"),
        ({"factor": -0.5}, "flood.factor=-0.5"),
        ({"b": -0.5}, "flood.b=-0.5"),
        (
            {"pairs": "cross", "accordance": watching(against="validation")},
            "flood.pairs=cross: not measured with flood.accordance.against=validation; set both",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], line: str):
    with pytest.raises(ValueError, match=f"^{line}"):
        Auto(**options)


def test_two_turns_uphill_are_refused():
    with pytest.raises(ValueError, match="^flood=Auto: with update=alternate both would turn"):
        METHODS["finetune"](classify(bert()), sgd(flood=Auto(), update=Alternate()))


# ---- in a training -------------------------------------------------------------------------------


def forced(step: int) -> Auto:
    """A flood that hears of a change at this step, whatever is measured."""
    flood = Auto(b=0.65, accordance=watching())

    def hear(reading: Reading) -> dict[str, float]:
        value = 1.0 if reading.step < step else -1.0
        return flood.hear(Reading(reading.step, reading.epoch, {"validation": value}))

    flood.accordance.listeners[:] = [hear]
    return flood


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("finetune", {}),
        ("finetune", {"accumulate_grad_batches": 2}),
        ("finetune", {"update": SAM()}),
        ("freelb", {}),
        ("smart", {}),
        ("free_at", {}),
    ],
)
def test_plain_before_the_change_and_flooded_from_then_on(method: str, options: dict[str, Any]):
    auto = trained(method, forced(6), **options)
    flood = Switched(0.65)
    by_hand = trained(method, flood, Switch(flood, 6), **options)
    plain = trained(method, Flood(), **options)
    same(auto.weights, by_hand.weights)
    for now, never in zip(auto.gradients[:6], plain.gradients[:6], strict=True):
        same(now, never)
    with pytest.raises(AssertionError):
        same(auto.weights, plain.weights)
    flood = auto.module.descent.flood
    assert isinstance(flood, Auto)
    assert flood.decisions == [{"step": 6, "b": 0.65, "accordance": -1.0}]
    assert auto.logs[-1]["flood/level"] == pytest.approx(0.65)


def test_the_level_found_is_the_mean_of_the_losses_logged():
    flood = forced(6)
    flood.b = None
    run = trained("finetune", flood)
    losses = [log["train/loss"] for log in run.logs[4:6]]
    assert flood.level == pytest.approx(sum(losses) / 2, rel=1e-6)


def decided(flood: Auto, folder: Path, resume: Path | None = None) -> Recorder:
    """A training whose own readings decide, with a checkpoint after every step."""
    torch.manual_seed(0)
    module: Recorder = METHODS["freelb"](classify(bert(dropout=0.1)).float(), sgd(0.3, flood=flood))
    keep = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=[keep],
    )
    with without_lightnings_own_warnings():
        trainer.fit(module, Loader(batches(6, seed=3)), Stream(HELD_OUT), ckpt_path=resume)
    return module


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_training_decides_alike(tmp_path: Path):
    def flood() -> Auto:
        return Auto("validation", "any", 0.0, factor=0.2, accordance=watching(batches=2))

    first = flood()
    whole = weights(decided(first, tmp_path / "whole").task)
    assert first.decisions
    for step in (3, 4, 7):
        again = flood()
        checkpoint = tmp_path / "whole" / f"step={step}.ckpt"
        same(weights(decided(again, tmp_path / f"from {step}", checkpoint).task), whole)
        assert again.decisions == first.decisions
