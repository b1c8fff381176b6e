"""Gradient accordance of modules, batches and losses of somebody else's, and of half precision."""

from collections import UserDict
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from accordance.brute import Weights, data, inner, mean, means, network, task, watch
from accordance.foreign import (
    Loader,
    Pair,
    Plain,
    classes,
    cross_entropy,
    of_plain,
    pairs,
    trained,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import METHODS, Tensors, sgd
from torch import Tensor, nn

near = pytest.approx
DATA = pairs()


def at(state: Tensors, make: Callable[[], Plain] = Plain) -> Plain:
    module = make()
    module.load_state_dict({**module.state_dict(), **state})
    return module


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("theta", ["fixed", "moving"])
def test_readings_of_a_module_of_somebody_elses(theta: str, accumulate: int):
    seen = Weights()
    accordance = watch(theta=theta, losses=cross_entropy, labels=classes, every_n_steps=3)
    trained(Plain(observe=accordance.observe), seen, accordance, accumulate_grad_batches=accumulate)
    windows = [range(3), range(3, 6), [6]] if accumulate == 1 else [range(6), [6]]
    numbers = [[7 * epoch + n for n in window] for epoch in range(2) for window in windows]
    for reading, window in zip(accordance.readings, numbers, strict=True):
        states = [seen.after[window[-1]] if theta == "fixed" else seen.before[n] for n in window]
        found = [of_plain(at(s), DATA[n % 7]) for s, n in zip(states, window, strict=True)]
        assert reading.values == near(means(found), rel=1e-10)


def test_held_out_data_of_a_module_of_somebody_elses():
    seen, held_out = Weights(), pairs(3, seed=9)
    accordance = watch(losses=cross_entropy, labels=classes, against="both")
    trained(Plain(), seen, accordance, validation=Loader(held_out), epochs=1)
    now = at(seen.after[-1])
    together = torch.cat([x for x, _ in held_out]), torch.cat([y for _, y in held_out])
    direction = of_plain(now, together, alike=True)[0]
    cosines = [inner(of_plain(now, batch, alike=True)[0], direction) for batch in DATA]
    expected = {"validation": mean(cosines), **means([of_plain(now, b) for b in DATA])}
    assert accordance.readings[0].values == near(expected, rel=1e-10)


class Regression(Plain):
    """One number per input."""

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        return squares(self, batch).mean()


def squares(module: L.LightningModule, batch: Any) -> Tensor:
    x, y = batch
    return (module(x)[:, 0] - y).square()


@pytest.mark.parametrize("labels", [None, "numbers", "several"])
def test_without_classes_all_examples_are_of_one(labels: str | None):
    numbers = [(x, y.double()) for x, y in DATA]
    kinds: dict[str | None, dict[str, Any]] = {
        None: {},
        "numbers": {"labels": classes},
        "several": {"labels": lambda batch: torch.ones(len(batch[0]), 2, dtype=torch.long)},
    }
    seen, accordance = Weights(), watch(losses=squares, **kinds[labels])
    trained(Regression(), seen, accordance, data=Loader(numbers), epochs=1)
    now = at(seen.after[-1], Regression)
    found = means([of_plain(now, pair, squares, alike=True) for pair in numbers])
    assert accordance.readings[0].values == near(found, rel=1e-10)
    assert found.keys() == {"same", "all"} and found["same"] == found["all"]


class Named(NamedTuple):
    """A batch with names."""

    x: Tensor
    y: Tensor


def as_dict(batch: Pair) -> Any:
    return UserDict({"id": "a", "x": batch[0], "labels": batch[1]})


def of_dict(module: L.LightningModule, batch: Any) -> Tensor:
    return cross_entropy(module, (batch["x"], batch["labels"]))


def of_named(module: L.LightningModule, batch: Any) -> Tensor:
    return cross_entropy(module, (batch.x, batch.y))


class Anything(Plain):
    """Trains on nothing, so that batches may be of any kind."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.head.weight.sum() * 0


@pytest.mark.parametrize("make, options", [
    (as_dict, {"losses": of_dict}),
    (lambda pair: Named(*pair), {"losses": of_named, "labels": lambda batch: batch.y}),
    (list, {"losses": cross_entropy, "labels": classes}),
])  # fmt: skip
def test_batches_may_be_nested_in_any_container(make: Callable, options: dict[str, Any]):
    accordance = watch(**options)
    trained(Anything(), accordance, data=Loader([make(pair) for pair in DATA]), epochs=1)
    expected = means([of_plain(Plain(), batch) for batch in DATA])
    assert accordance.readings[0].values == near(expected, rel=1e-10)


# ---- what is refused -----------------------------------------------------------------------------


class Twice(Plain):
    """Passes through its last layer twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(-x)


class Headless(L.LightningModule):
    """No linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.3)


MINE = {"losses": cross_entropy, "labels": classes}


@pytest.mark.parametrize("module, options, said", [
    (Plain, {}, "Plain does not say the losses of its examples; give losses=lambda"),
    (Plain, {**MINE, "theta": "moving"}, "theta=moving: Plain has shown no losses; call observe"),
    (Plain, {**MINE, "against": "both"}, "against=validation: needs validation data"),
    (lambda: Plain(norm=True), {**MINE, "mode": "train"}, "mode=train: through batch norms"),
    (Twice, {**MINE, "parameters": "head"}, "parameters=head: the losses pass .* layer 2 times"),
    (Headless, {**MINE, "parameters": "head"}, "parameters=head: the module has no linear layer"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(
    module: Callable[[], L.LightningModule], options: dict[str, Any], said: str
):
    with pytest.raises(ValueError, match=said):
        trained(module(), watch(**options))


def mean_loss(module: L.LightningModule, batch: Any) -> Tensor:
    return cross_entropy(module, batch).mean()


@pytest.mark.parametrize("parameters", ["all", "head"])
def test_losses_of_no_examples_are_refused(parameters: str):
    accordance = watch(losses=mean_loss, labels=classes, parameters=parameters)
    with pytest.raises(ValueError, match=r"losses \[\] of \d examples: needs one for each"):
        trained(Plain(), accordance)


def test_a_mean_loss_is_no_loss_of_examples():
    accordance = watch(theta="moving", **MINE)

    def observe(batch: Any, losses: Tensor) -> None:
        accordance.observe(batch, losses.mean())

    with pytest.raises(ValueError, match=r"observe: losses \[\]: needs those of the examples"):
        trained(Plain(observe=observe), accordance)


# ---- half precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", ["fixed", "moving"])
@pytest.mark.parametrize("parameters", ["all", "head"])
@pytest.mark.parametrize("of", ["task", "somebody else's"])
def test_readings_do_not_depend_on_the_loss_scale(theta: str, parameters: str, of: str):
    found = []
    for scale in (None, 2.0**4, 2.0**13):
        options = {} if of == "task" else MINE
        accordance = watch(theta=theta, parameters=parameters, normalize="none", **options)
        batches: Any = data(4)
        if of == "task":
            module = METHODS["freelb"](task(network().float()), sgd(lr=0.01))
        else:
            module = Plain(observe=accordance.observe).float()
            batches = [(x.float(), y) for x, y in pairs(4)]
        plugin = None
        if scale is not None:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            plugin = [MixedPrecision("16-mixed", "cpu", scaler)]
        trained(module, accordance, data=Loader(batches), plugins=plugin, epochs=1)
        found.append(accordance.readings[0].values)
    assert len(found[0]) == 4
    assert found[1] == near(found[2], rel=2e-3)
    assert found[1] == near(found[0], rel=0.05, abs=1e-3) and found[1] != found[0]


def test_slopes_too_small_for_float16_are_read_all_the_same():
    """Of well-learnt examples: about 1e-9 here."""
    found = []
    for precision in ("32-true", "16-mixed"):
        module = METHODS["finetune"](task(network().float()), sgd(lr=0.0))
        with torch.no_grad():
            module.task.network.head.weight.zero_()  # pyright: ignore
            module.task.network.head.bias.copy_(torch.tensor([20.0, 0, 0]))  # pyright: ignore
        batches = [{**b, "labels": torch.zeros_like(b["labels"])} for b in data(3)]
        accordance = watch(parameters="head")
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        plugins = [MixedPrecision("16-mixed", "cpu", scaler)] if precision != "32-true" else None
        trained(module, accordance, data=Loader(batches), epochs=1, plugins=plugins)
        found.append(accordance.readings[0].values)
    assert found[1] == near(found[0], rel=1e-2) and found[0].keys() == {"same", "all"}


@pytest.mark.parametrize("theta", ["fixed", "moving"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_is_near_the_whole(theta: str, precision: str):
    found = []
    for chosen in ("32-true", precision):
        held_out = Loader(data(3, seed=9)) if theta == "fixed" else None
        against = "both" if theta == "fixed" else "train"
        accordance = watch(theta=theta, against=against)
        module = METHODS["finetune"](task(network().float()), sgd(lr=0.01))
        trained(
            module, accordance, data=Loader(data(4)), validation=held_out, precision=chosen,
            epochs=1,
        )  # fmt: skip
        found.append(accordance.readings[0].values)
    assert found[1] == near(found[0], rel=0.1, abs=0.02) and found[1] != found[0]
    assert len(found[0]) == (5 if theta == "fixed" else 4)


def test_batches_whose_gradients_overflow_are_left_out():
    found = []
    scales = {2.0**60: data(6), 2.0**10: data(6)[2:]}  # the first skips two steps
    for scale, batches in scales.items():
        accordance = watch(theta="moving", normalize="none")
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=2.0**-25)
        module = METHODS["finetune"](task(network().float()), sgd(lr=0.01))
        plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
        trained(module, accordance, data=Loader(batches), epochs=1, plugins=plugins)
        assert module.skipped_steps == (2 if scale > 2.0**10 else 0)
        found.append(accordance.readings[0].values)
    assert found[0] == near(found[1], rel=1e-9) and len(found[0]) == 4
