"""Measuring gradient accordance changes nothing: the training goes on as if nobody had looked."""

from collections.abc import Callable
from functools import cache
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from accordance.brute import Log, data, network, task, watch
from accordance.foreign import Loader, Plain, classes, cross_entropy, pairs, trained
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import FREE, METHODS, Recorder, Run, batches, bert, classify, fit, same, sgd
from torch import Tensor
from torch.utils.data import DataLoader

from lit_adv.accordance.how import task_losses
from lit_adv.updates.sam import SAM

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*sampler has shuffling enabled",
    "ignore:Found 1 module.s. in eval mode",
)

WAYS: dict[str, dict[str, Any]] = {
    "fixed": {"against": "both", "every_n_steps": 3},
    "fixed, train": {"against": "both", "mode": "train", "every_n_steps": 2, "batches": 2},
    "head": {"against": "both", "parameters": "head", "every_n_steps": 3},
    "moving": {"theta": "moving", "every_n_steps": 3},
    "moving, some": {"theta": "moving", "batches": 3, "parameters": "bend"},
}
every_way = pytest.mark.parametrize("way", WAYS)


def state(module: L.LightningModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def others(log: Log) -> list[tuple[int, dict[str, float]]]:
    """What was logged by others than the callback."""
    return [(step, row) for step, row in log.rows if "accordance/seconds" not in row
            and not any(name.endswith("_epoch") for name in row)]  # fmt: skip


def shuffled(batches: list[Any], own: bool = False) -> DataLoader:
    """Draws from PyTorch's stream, or from one of its own."""
    stream = torch.Generator().manual_seed(8) if own else None
    rows: Any = batches
    return DataLoader(rows, batch_size=None, shuffle=True, generator=stream)


def method(name: str) -> Recorder:
    options = {"update": SAM(0.5)} if name == "sam" else {}
    build = {"free_at": FREE, "sam": METHODS["freelb"]}.get(name) or METHODS[name]
    return build(task(network(dropout=0.2)), sgd(lr=0.3, **options))


def ending(name: str, own: bool, *callbacks: L.Callback) -> tuple[Any, Any]:
    """Weights, streams and logs at the end of a training."""
    module, log = method(name), Log()
    trained(
        module, *callbacks, data=shuffled(data()), validation=shuffled(data(3, seed=9), own),
        logger=log, log_every_n_steps=1, precision="64-true", val_check_interval=3,
    )  # fmt: skip
    return (state(module), torch.get_rng_state(), module.noise.get_state()), others(log)


unwatched = cache(ending)

RUNS = [
    *((name, "fixed", False) for name in ("finetune", "freelb", "smart", "free_at", "sam")),
    *(("sam", way, False) for way in ("fixed, train", "head", "moving", "moving, some")),
    ("finetune", "fixed", True),
]


@pytest.mark.parametrize("name, way, own", RUNS)
def test_weights_and_losses_are_those_of_a_training_that_nobody_watches(
    name: str, way: str, own: bool
):
    accordance = watch(**WAYS[way])
    end, logged = ending(name, own, accordance)
    same(end, unwatched(name, own)[0])
    assert logged == unwatched(name, own)[1] and len(logged) == 14 + 4
    assert len(accordance.readings) >= 2
    assert all("all" in reading.values for reading in accordance.readings if reading.step % 7)


@pytest.mark.parametrize("name", [*METHODS, "free_at"])
def test_training_passes_of_every_method_are_watched_without_a_trace(name: str):
    def run(*callbacks: L.Callback) -> Run:
        build = FREE if name == "free_at" else METHODS[name]
        return fit(build(classify(bert(dropout=0.1)), sgd()), batches(2), callbacks=callbacks)

    accordance = watch(theta="moving")
    watched, alone = run(accordance), run()
    same(watched.gradients, alone.gradients)
    same(watched.weights, alone.weights)
    assert accordance.readings[0].values.keys() == {"cross", "same", "all", "within"}


def of_others(way: str) -> dict[str, Any]:
    """The same for a module of somebody else's."""
    options = {"losses": cross_entropy, "labels": classes, **WAYS[way]}
    return options | ({"parameters": "body"} if "parameters" in options else {})


@every_way
@pytest.mark.parametrize("accumulate", [1, 2])
def test_so_are_those_of_a_module_of_somebody_elses(way: str, accumulate: int):
    ends, logs = [], []
    accordance = watch(**of_others(way))
    for watched in (False, True):
        module, log = Plain(dropout=0.2, norm="train" not in way), Log()
        module.observe = accordance.observe if watched and "moving" in way else None
        trained(
            module, *([accordance] if watched else []), data=shuffled(pairs()),
            validation=shuffled(pairs(3, seed=9)), logger=log, log_every_n_steps=1,
            accumulate_grad_batches=accumulate,
        )  # fmt: skip
        ends.append((state(module), torch.get_rng_state()))  # batch norm's statistics too
        logs.append(others(log))
    same(ends[1], ends[0])
    assert logs[1] == logs[0] and len(logs[0]) > 8
    assert accordance.readings and "all" in accordance.readings[0].values


class Look(L.Callback):
    """Modes, what trains, gradients and random streams after each batch."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        self.seen.append(shape(pl_module))


def shape(module: L.LightningModule) -> Any:
    return (
        [part.training for part in module.modules()],
        [weight.requires_grad for weight in module.parameters()],
        [None if w.grad is None else w.grad.clone() for w in module.parameters()],
        [buffer.clone() for buffer in module.buffers()],
        torch.get_rng_state(),
        np.random.get_state()[1],  # pyright: ignore
        len(module.head._forward_hooks),  # pyright: ignore
    )


def half_frozen(norm: bool = True) -> Plain:
    module = Plain(dropout=0.2, norm=norm)
    module.dropout.eval()
    assert module.body.bias is not None
    module.body.bias.requires_grad_(False)
    return module


def restless(module: L.LightningModule, batch: Any) -> Tensor:
    """Losses that draw; not from Python's stream, which the tests' type checks draw from too."""
    np.random.rand()
    return cross_entropy(module, batch) * (1 + 0.1 * torch.rand(()))


@every_way
def test_modes_streams_and_gradients_are_afterwards_what_they_were(way: str):
    before, after = Look(), Look()
    accordance = watch(**{**of_others(way), "losses": restless})
    module = half_frozen(norm="train" not in way)
    module.observe = accordance.observe if "moving" in way else None
    trained(module, before, accordance, after, validation=Loader(pairs(3)))
    same(after.seen, before.seen)
    assert len(accordance.readings) >= 2


def drawing(module: L.LightningModule, batch: Any) -> Tensor:
    """Losses that draw from PyTorch's stream."""
    return cross_entropy(module, batch) * (1 + 0.1 * torch.rand(()))


def failing(losses: Callable[[L.LightningModule, Any], Tensor], after: int) -> Any:
    """These losses so many times, and then an error."""
    calls = []

    def of(module: L.LightningModule, batch: Any) -> Tensor:
        calls.append(0)
        found = losses(module, batch)
        if len(calls) > after:
            raise RuntimeError("broken off")
        return found

    return of


@pytest.mark.parametrize("way", ["fixed", "fixed, train", "head"])
def test_an_error_within_a_measurement_leaves_all_as_it_was_too(way: str, tmp_path: Any):
    before = Look()
    options = {**of_others(way), "losses": failing(drawing, 25), "picture": "accordance.png"}
    accordance, module = watch(**options), half_frozen(norm="train" not in way)
    folder = tmp_path / "run"  # which nobody has made yet
    with pytest.raises(RuntimeError, match="broken off"):
        trained(module, before, accordance, validation=Loader(pairs(3)), default_root_dir=folder)
    same(shape(module), before.seen[-1])
    assert accordance.readings and (folder / "accordance.png").exists()


def test_a_module_keeps_its_other_observers():
    seen: list[int] = []
    module = method("finetune")
    module.observers.append(lambda batch, losses, share: seen.append(len(losses)))
    for error in (None, "broken off"):
        losses = task_losses if error is None else failing(task_losses, 0)
        options = {"theta": "moving"} if error is None else {"losses": losses}
        accordance = watch(**options)
        if error is None:
            trained(module, accordance, data=Loader(data()), precision="64-true")
        else:
            with pytest.raises(RuntimeError, match=error):
                trained(module, accordance, data=Loader(data()), precision="64-true")
        assert len(module.observers) == 1
    assert seen == [5] * 21


class Scale(torch.amp.GradScaler):
    """Counts how often the host waits for the loss scale."""

    asked = 0

    def get_scale(self) -> float:
        self.asked += 1
        return super().get_scale()


def test_no_host_waits_at_batches_that_are_not_looked_at():
    asked = []
    for count in (2, 7):
        scale = Scale("cpu", init_scale=8.0)
        module = METHODS["freelb"](task(network().float()), sgd())
        plugin = MixedPrecision("16-mixed", "cpu", scale)
        accordance = watch(theta="moving", batches=count)
        trained(module, accordance, data=Loader(data()), epochs=1, plugins=[plugin])
        asked.append(scale.asked)
    passes = 4
    assert asked[1] - asked[0] == 5 * passes
