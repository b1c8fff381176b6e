"""Gradient accordance while training: each reading against all pairs of gradients, by hand."""

import math
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

import lightning as L
import pytest
import torch
from accordance.brute import (
    ClassGradients,
    Log,
    Weights,
    at,
    data,
    gradients,
    inner,
    means,
    network,
    task,
    watch,
    whole,
)
from testbed import (
    METHODS,
    Recorder,
    Run,
    Stream,
    Tensors,
    fit,
    same,
    sgd,
    without_lightnings_own_warnings,
)
from torch import nn

from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.updates.sam import SAM

BATCHES, EPOCHS = 7, 2
DATA = data(BATCHES)
HELD_OUT = data(3, seed=9)
near = pytest.approx


def method(name: str = "finetune", of: nn.Module | None = None, **options: Any) -> Recorder:
    return METHODS[name](task(of), sgd(lr=0.3, **options))


def fitted(module: Recorder, *callbacks: L.Callback, **options: Any) -> Run:
    settings = {"epochs": EPOCHS, "callbacks": callbacks, "num_sanity_val_steps": 0, **options}
    return fit(module, settings.pop("data", DATA), **settings)


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found == near(expected, rel=1e-10, abs=1e-10)


def union(parts: Sequence[Sequence[ClassGradients]]) -> list[ClassGradients]:
    return [batch for part in parts for batch in part]


# ---- at fixed weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batches, chosen",
    [
        (1.0, [0, 1, 2, 3, 4, 5, 6]),
        (3, [2, 4, 6]),
        (0.5, [1, 3, 5, 6]),
        (None, [3, 6]),
        (1, [3, 6]),
    ],
)
@pytest.mark.parametrize("normalize", ["cosine", "none"])
def test_a_reading_is_the_mean_over_all_pairs_at_the_weights_as_they_are(
    batches: float | None, chosen: list[int], normalize: str
):
    seen, accordance = Weights(), watch(batches=batches, normalize=normalize)
    fitted(method(), seen, accordance)
    assert [reading.step for reading in accordance.readings] == [BATCHES, 2 * BATCHES]
    assert [reading.epoch for reading in accordance.readings] == [1.0, 2.0]
    for reading in accordance.readings:
        now = at(seen.after[reading.step - 1])
        agree(reading.values, means([gradients(now, DATA[n]) for n in chosen], normalize))
        assert reading.values["same"] != near(reading.values["cross"], abs=1e-3)


def test_windows_have_readings_of_their_own_and_make_up_the_epoch():
    seen, accordance, log = Weights(), watch(every_n_steps=3), Log()
    fitted(method(), seen, accordance, logger=log)
    assert [reading.step for reading in accordance.readings] == [3, 6, 7, 10, 13, 14]
    assert [r.epoch for r in accordance.readings] == near([n / 7 for n in (3, 6, 7, 10, 13, 14)])
    windows = [DATA[:3], DATA[3:6], DATA[6:]] * EPOCHS
    found = []
    for reading, window in zip(accordance.readings, windows, strict=True):
        now = at(seen.after[reading.step - 1])
        found.append([gradients(now, batch) for batch in window])
        agree(reading.values, means(found[-1]))
    assert "cross" not in accordance.readings[2].values  # of one batch there is no pair
    for epoch in range(EPOCHS):
        logged = {name: log.series(f"accordance/{name}_epoch") for name in means(found[0])}
        expected = means(union(found[3 * epoch : 3 * epoch + 3]))
        agree({n: values[7 * epoch + 6] for n, values in logged.items()}, expected)


def test_the_last_window_is_as_evenly_looked_at_as_it_is_long():
    seen, accordance = Weights(), watch(every_n_steps=4, batches=2)
    fitted(method(), seen, accordance)
    for reading, window in zip(accordance.readings, [[1, 3], [5, 6], [1, 3], [5, 6]], strict=True):
        now = at(seen.after[reading.step - 1])
        agree(reading.values, means([gradients(now, DATA[n]) for n in window]))


@pytest.mark.parametrize("every, max_steps, windows", [
    (None, 10, {7: range(7), 10: range(3)}),
    (5, 12, {5: range(5), 7: range(5, 7), 12: range(5)}),
    (4, 10, {4: range(4), 7: range(4, 7), 10: range(3)}),
])  # fmt: skip
def test_a_training_that_ends_within_an_epoch_ends_with_a_reading(
    every: int | None, max_steps: int, windows: dict[int, range]
):
    seen, accordance, log = Weights(), watch(every_n_steps=every), Log()
    fitted(method(), seen, accordance, max_steps=max_steps, logger=log)
    assert [reading.step for reading in accordance.readings] == list(windows)
    found = {}
    for reading in accordance.readings:
        now = at(seen.after[reading.step - 1])
        found[reading.step] = [gradients(now, DATA[n]) for n in windows[reading.step]]
        agree(reading.values, means(found[reading.step]))
    if every:
        last = means(union([part for step, part in found.items() if step > BATCHES]))
        assert log.series("accordance/all_epoch") == near({
            6: means(union([part for step, part in found.items() if step <= BATCHES]))["all"],
            max_steps - 1: last["all"],
        })  # fmt: skip


@pytest.mark.parametrize("every, batches, windows", [
    (None, 1.0, {4: range(7)}),
    (2, 1.0, {2: range(4), 4: range(4, 7)}),
    (2, 2, {2: [1, 3], 4: [5, 6]}),
])  # fmt: skip
def test_where_gradients_are_accumulated_batches_are_those_that_are_passed(
    every: int | None, batches: float, windows: dict[int, Sequence[int]]
):
    seen, accordance = Weights(), watch(every_n_steps=every, batches=batches)
    fitted(method(accumulate_grad_batches=2), seen, accordance, epochs=1)
    assert [reading.step for reading in accordance.readings] == list(windows)
    for reading in accordance.readings:
        now = at(seen.after[min(2 * reading.step, BATCHES) - 1])
        agree(reading.values, means([gradients(now, DATA[n]) for n in windows[reading.step]]))


class Unsized:
    """Batches that nobody has counted."""

    def __init__(self, batches: Sequence[Tensors] = DATA) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensors]:
        return iter(self.batches)


def unsized(module: Recorder, *callbacks: L.Callback, **options: Any) -> Run:
    run = Run(module)
    trainer = L.Trainer(
        max_steps=10, precision="64-true", accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=[run, *callbacks],
    )  # fmt: skip
    trainer.fit(module, Unsized(), **options)
    return run


quiet = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*have no `val_dataloader`")


@quiet
def test_of_an_epoch_of_unknown_length_a_number_of_last_batches_is_looked_at():
    seen, accordance = Weights(), watch(batches=3)
    unsized(method(), seen, accordance)
    assert [reading.step for reading in accordance.readings] == [7, 10]
    assert accordance.readings[0].epoch == 1.0
    for reading, chosen in zip(accordance.readings, [[4, 5, 6], [0, 1, 2]], strict=True):
        now = at(seen.after[reading.step - 1])
        agree(reading.values, means([gradients(now, DATA[n]) for n in chosen]))


@quiet
def test_a_share_of_an_unknown_length_is_refused_but_for_windows():
    with pytest.raises(ValueError, match="batches=0.1: a share of an epoch of unknown length; giv"):
        unsized(method(), watch(batches=None))
    accordance = watch(batches=0.9, every_n_steps=2)
    unsized(method(), accordance)
    assert [reading.step for reading in accordance.readings] == [2, 4, 6, 7, 9, 10]


# ---- against held-out data -----------------------------------------------------------------------


@pytest.mark.parametrize("against", ["validation", "both"])
@pytest.mark.parametrize("normalize", ["cosine", "none"])
def test_the_validation_series_is_the_mean_with_the_held_out_gradient(against: str, normalize: str):
    seen, accordance = Weights(), watch(batches=4, against=against, normalize=normalize)
    fitted(method(), seen, accordance, validation=HELD_OUT)
    for reading in accordance.readings:
        now = at(seen.after[reading.step - 1])
        direction = whole(now, *HELD_OUT)
        found = [inner(whole(now, DATA[n]), direction, normalize) for n in (1, 3, 5, 6)]
        expected = {"validation": mean(found)}
        if against == "both":
            expected |= means([gradients(now, DATA[n]) for n in (1, 3, 5, 6)], normalize)
        agree(reading.values, expected)
        assert reading.errors["validation"] == near(stdev(found) / math.sqrt(4))


@pytest.mark.parametrize("count", [3, 20])
def test_held_out_examples_are_the_first_of_evenly_spaced_batches(count: int):
    """Not more than were asked for, but for rounding up."""
    held_out, seen = data(count, seed=9), Weights()
    accordance = watch(against="validation", held_out=16)
    fitted(method(), seen, accordance, validation=held_out, epochs=1)
    places, rows = ([0, 1, 2], 5) if count == 3 else ([0, 2, 5, 7, 10, 12, 15, 17], 2)
    parts = [{name: v[:rows] for name, v in held_out[n].items()} for n in places]
    now = at(seen.after[-1])
    direction = whole(now, *parts)
    found = [inner(whole(now, batch), direction) for batch in DATA]
    agree(accordance.readings[0].values, {"validation": mean(found)})


def test_held_out_data_are_found_before_the_first_validation():
    accordance = watch(against="validation")
    fitted(method(), accordance, validation=HELD_OUT, check_val_every_n_epoch=2)
    assert [reading.step for reading in accordance.readings] == [7, 14]
    assert len(accordance.validation) == 1


@quiet
def test_of_validation_data_of_unknown_length_the_first_are_held_out():
    held_out, seen, accordance = data(10, seed=9), Weights(), watch(against="validation", batches=3)
    unsized(method(), seen, accordance, val_dataloaders=Unsized(held_out))
    now = at(seen.after[BATCHES - 1])
    direction = whole(now, *held_out[:8])
    found = [inner(whole(now, batch), direction) for batch in DATA[4:]]
    agree(accordance.readings[0].values, {"validation": mean(found)})


@pytest.mark.parametrize("options", [{}, {"validation": HELD_OUT, "limit_val_batches": 0}])
def test_without_validation_data_there_is_nothing_to_go_against(options: dict[str, Any]):
    with pytest.raises(
        ValueError, match="against=validation: needs validation data.*against=train"
    ):
        fitted(method(), watch(against="both"), **options)


# ---- at the weights of the training passes -------------------------------------------------------

KINDS = {
    "finetune": ("finetune", {}, 1),
    "freelb": ("freelb", {}, 4),
    "sam": ("finetune", {"update": SAM(0.5)}, 1),
    "sam, freelb": ("freelb", {"update": SAM(0.5)}, 4),
}
"""A method, options of its descent, and the training passes of a first look."""


def moving_gradients(module: Recorder, seen: Weights, count: int) -> list[ClassGradients]:
    """Of each batch's training passes, at the weights it was trained at."""
    found = []
    for number, (start, before) in enumerate(zip(seen.passes, seen.before, strict=True)):
        deltas = [look.delta for look in module.seen[start : start + count]]
        shares = [(1 / count, delta) for delta in deltas]
        found.append(gradients(at(before), DATA[number % BATCHES], shares))
    return found


CUTS: list[tuple[int, int | None, float, list[Sequence[int]]]] = [
    (1, 3, 1.0, [range(3), range(3, 6), [6]]),
    (2, 3, 4, [[1, 2, 4, 5], [6]]),
    (1, None, 1.0, [range(7)]),
    (1, None, 3, [[2, 4, 6]]),
    (2, None, 1.0, [range(7)]),
]
"""Batches per step, steps per window, batches to look at, and which these are."""


@pytest.mark.parametrize(
    "kind, accumulate, every, batches, windows",
    [(kind, *cut) for kind in KINDS for cut in (CUTS if kind == "finetune" else CUTS[:2])],
)
def test_moving_readings_are_of_the_training_passes_at_their_weights(
    kind: str, accumulate: int, every: int | None, batches: float, windows: list[Sequence[int]]
):
    name, options, count = KINDS[kind]
    module, seen, log = (
        method(name, accumulate_grad_batches=accumulate, **options),
        Weights(),
        Log(),
    )
    accordance = watch(theta="moving", every_n_steps=every, batches=batches)
    fitted(module, seen, accordance, logger=log)
    by_hand, steps = moving_gradients(module, seen, count), -(-BATCHES // accumulate)
    numbers = [[e * BATCHES + n for n in window] for e in range(EPOCHS) for window in windows]
    for reading, window in zip(accordance.readings, numbers, strict=True):
        agree(reading.values, means([by_hand[n] for n in window]))
    if every:
        for epoch in range(EPOCHS):
            mine = union([[by_hand[n] for n in part] for part in numbers])
            half = mine[epoch * len(mine) // EPOCHS :][: len(mine) // EPOCHS]
            last = (epoch + 1) * steps - 1
            assert log.series("accordance/all_epoch")[last] == near(means(half)["all"], rel=1e-10)


class Calls:
    """How often a network is called, in training and evaluation mode."""

    def __init__(self, of: nn.Module) -> None:
        self.training = self.evaluation = 0
        of.register_forward_hook(self._count)

    def _count(self, of: nn.Module, *_: Any) -> None:
        if of.training:
            self.training += 1
        else:
            self.evaluation += 1


@pytest.mark.parametrize("kind", KINDS)
def test_moving_readings_need_no_further_forward_pass_and_leave_the_gradients(kind: str):
    name, options, _ = KINDS[kind]
    alone, watched = network(dropout=0.2), network(dropout=0.2)
    calls = [Calls(alone), Calls(watched)]
    accordance = watch(theta="moving", batches=4)
    plain = fitted(method(name, alone, **options))
    run = fitted(method(name, watched, **options), accordance)
    assert (calls[0].training, calls[0].evaluation) == (calls[1].training, calls[1].evaluation)
    assert len(run.gradients) == EPOCHS * BATCHES
    same(run.gradients, plain.gradients)
    assert accordance.readings[0].values.keys() == {"cross", "same", "all", "within"}


def test_fixed_readings_pass_once_over_each_class_of_the_chosen_batches():
    of = network(dropout=0.2)
    calls = Calls(of)
    fitted(method(of=of), watch(batches=3))
    classes = [len(DATA[n]["labels"].unique()) for n in (2, 4, 6)]
    assert (calls.training, calls.evaluation) == (EPOCHS * BATCHES, EPOCHS * sum(classes))


# ---- which weights, which losses -----------------------------------------------------------------


@pytest.mark.parametrize("theta", ["fixed", "moving"])
@pytest.mark.parametrize("parameters, names", [
    ("head", ["head.weight", "head.bias"]),
    ("words|bend.bias", ["words.weight", "bend.bias"]),
    (r"weight$", ["words.weight", "bend.weight", "head.weight"]),
])  # fmt: skip
def test_a_part_of_the_weights_is_that_part_of_the_gradient(
    theta: str, parameters: str, names: list[str]
):
    seen, accordance = Weights(), watch(theta=theta, parameters=parameters)
    fitted(method(), seen, accordance, epochs=1)
    states = [seen.after[-1]] * BATCHES if theta == "fixed" else seen.before
    found = [
        gradients(at(state), batch, names=names) for state, batch in zip(states, DATA, strict=True)
    ]
    agree(accordance.readings[0].values, means(found))


def test_held_out_directions_are_of_these_weights_too():
    readings = {}
    for parameters in ("head", "head.(weight|bias)"):
        accordance = watch(parameters=parameters, against="both")
        fitted(method(), accordance, validation=HELD_OUT, epochs=1)
        readings[parameters] = accordance.readings[0].values
    agree(readings["head"], readings["head.(weight|bias)"])
    assert len(readings["head"]) == 5


class Backwards(nn.Module):
    """Counts the backward passes that come by."""

    def __init__(self, of: nn.Module) -> None:
        super().__init__()
        self.of, self.count = of, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = self.of(x)
        if answer.requires_grad:
            answer.register_hook(self._count)
        return answer

    def _count(self, _: torch.Tensor) -> None:
        self.count += 1


@pytest.mark.parametrize("parameters, more", [("head", 0), ("all", 17)])
def test_the_head_needs_no_backward_pass_through_the_body(parameters: str, more: int):
    of = network()
    assert of.bend is not None
    of.bend = Backwards(of.bend)  # pyright: ignore[reportAttributeAccessIssue]
    fitted(method(of=of), watch(parameters=parameters), epochs=1)
    assert sum(len(batch["labels"].unique()) for batch in DATA) == 17
    assert of.bend.count == BATCHES + more  # pyright: ignore


@pytest.mark.parametrize("parameters", ["nothing", "head.weights"])
def test_a_name_that_no_weight_has_is_refused(parameters: str):
    with pytest.raises(ValueError, match=f"parameters={parameters}: no weight that trains has su"):
        fitted(method(), watch(parameters=parameters))


def test_dropout_is_on_where_the_mode_is_train():
    values = {}
    for mode in ("eval", "train"):
        seen, accordance = Weights(), watch(mode=mode)
        fitted(method(of=network(dropout=0.5)), seen, accordance)
        values[mode] = accordance.readings[-1].values
        found = means([gradients(at(seen.after[-1]), batch) for batch in DATA])
        assert (values[mode] == near(found, rel=1e-10)) == (mode == "eval")
    assert abs(values["train"]["all"] - values["eval"]["all"]) > 1e-3


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("options, said", [
    ({"theta": "still"}, "accordance.theta=still: choose one of fixed, moving"),
    ({"against": "test"}, "accordance.against=test: choose one of train, validation, both"),
    ({"batches": 0}, "accordance.batches=0: a number such as 8, or a share"),
    ({"batches": -1}, "accordance.batches=-1: a number"),
    ({"batches": 1.5}, r"accordance.batches=1.5: .* a share in \(0, 1\]"),
    ({"batches": "all"}, "accordance.batches=all: a number"),
    ({"held_out": 0}, "accordance.held_out=0: needs to be at least 1"),
    ({"every_n_steps": 0}, "accordance.every_n_steps=0: needs to be at least 1"),
    ({"every_n_steps": 2.5}, "accordance.every_n_steps=2.5: needs to be a whole number"),
    ({"normalize": "l2"}, "accordance.normalize=l2: choose"),
    ({"mode": "test"}, "accordance.mode=test: choose"),
    ({"pairs": "within"}, "accordance.pairs=within: choose"),
    ({"pairs": "validation"}, "pairs=validation: not measured with accordance.against=train"),
    ({"pairs": "all", "against": "validation"}, "pairs=all: not measured with .*=validation"),
    ({"theta": "moving", "against": "both"}, "against=both: held-out data are not trained on"),
])  # fmt: skip
def test_an_argument_out_of_its_range_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        GradientAccordance(**options)


def test_a_training_step_may_take_things_out_of_its_batch():
    class Takes(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def training_step(self, batch: Tensors, batch_idx: int) -> torch.Tensor:
            labels = batch.pop("y")
            return nn.functional.cross_entropy(self.layer(batch["x"]), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    rows: Any = [{"x": torch.randn(4, 3), "y": torch.tensor([0, 1, 0, 1])} for _ in range(3)]
    module: Any = Takes()
    accordance = GradientAccordance(
        losses=lambda _, batch: nn.functional.cross_entropy(
            module.layer(batch["x"]), batch["y"], reduction="none"
        ),
        labels=lambda batch: batch["y"],
        batches=1.0,
        picture=None,
    )
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[accordance],
    )  # fmt: skip
    with without_lightnings_own_warnings():
        trainer.fit(module, Stream(rows))
    assert len(accordance.readings) == 1
