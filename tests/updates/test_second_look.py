"""What all updates share that look at an effective batch twice: weights, noise, statistics."""

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import lightning as L
import pytest
import torch
from places import UPDATES, Standing, every_update, flat, looks, small
from testbed import (
    FINETUNE,
    METHODS,
    MeanPool,
    Recorder,
    Tensors,
    batches,
    bert,
    classify,
    cut,
    fit,
    recording,
    same,
    sgd,
    weights,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_adv.descent import adamw
from lit_adv.methods.finetune import FineTune
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import SecondLook

NEUTRAL: dict[str, Callable[..., SecondLook]] = {
    "sam": partial(SAM, 0.0),
    "asam": partial(ASAM, 0.0),
    "awp": partial(AWP, 0.0),
    "awp by weight": partial(AWP, 0.0, bound="weight"),
    "penalty": partial(GradientPenalty, 0.0),
    "penalty of the square": partial(GradientPenalty, 0.0, of="square"),
    "backstitch": partial(Backstitch, 0.0),
}


# ---- the weights ---------------------------------------------------------------------------------


class Before(L.Callback):
    """The weights when the optimizer is about to step."""

    def __init__(self) -> None:
        self.weights: list[Tensors] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        self.weights.append(weights(cast(Recorder, pl_module).task))


@pytest.mark.parametrize("name", [name for name in UPDATES if name != "backstitch"])
def test_the_optimizer_steps_from_the_very_weights_the_first_look_was_taken_at(name: str):
    """In float32, and far away: to subtract what was added would leave rounding behind."""
    before = Before()
    descent = sgd(update=UPDATES[name](), optimizer=partial(adamw, lr=0.01))
    module = recording(FineTune, Standing)(classify(bert().float()), descent)
    fit(module, batches(3), callbacks=[before], precision="32-true")
    places = cast(Standing, module).places
    same(before.weights, places[::2])
    for first, second in zip(places[::2], places[1::2], strict=True):
        assert float((flat(second) - flat(first)).norm()) > 0.1


@every_update
@pytest.mark.parametrize("where", ["within the pass", "between two micro-batches", "on the way"])
def test_an_error_in_the_second_look_leaves_weights_statistics_and_dropout_as_they_were(
    name: str, where: str
):
    class Fails(Classification):
        count = 0

        def losses(self, logits: Tensor, batch: Batch) -> Tensor:
            self.count += 1
            if self.count == 4:  # the end of the first look
                self.stream = torch.get_rng_state()
            # Recorded once, used once, by each pass; of two micro-batches in two looks.
            if self.count == {"within the pass": 5, "between two micro-batches": 7}.get(where):
                raise ArithmeticError
            return super().losses(logits, batch)

    update = UPDATES[name]()
    if where == "on the way":
        _fail_on_the_way(update)
    network = MeanPool(width=16, norm=True, dropout=0.3)
    task, descent = Fails(network, num_labels=2), sgd(update=update, accumulate_grad_batches=2)
    start, module = weights(task), FINETUNE(task, descent)
    with pytest.raises(ArithmeticError):
        fit(module, batches(2))
    same(weights(task), start)
    same(torch.get_rng_state(), task.stream)
    assert network.norm is not None and network.norm.num_batches_tracked == 2
    assert not module.again

    # The next training is that of a fresh module.
    task.count, module.descent = 10, sgd(update=UPDATES[name](), accumulate_grad_batches=2)
    network.norm.reset_running_stats()
    again = fit(module, batches(4))
    descent = sgd(update=UPDATES[name](), accumulate_grad_batches=2)
    network = MeanPool(width=16, norm=True, dropout=0.3)
    fresh = fit(FINETUNE(classify(network), descent), batches(4))
    same(again.weights, fresh.weights)


def _fail_on_the_way(update: SecondLook) -> None:
    """Some weights have moved already; for instance the memory is full."""
    if isinstance(update, Backstitch):

        def climb(optimizer: Optimizer) -> None:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].add_(1.0)
            raise ArithmeticError

        update.climb = climb
        return

    def move(weights: Sequence[Tensor], grads: Sequence[Tensor], norm: Tensor) -> None:
        weights[0].add_(1.0)
        raise ArithmeticError

    update.move = move


@every_update
def test_weights_without_a_gradient_and_frozen_ones_stay(name: str):
    network = bert()
    network.bert.embeddings.requires_grad_(False)
    task = classify(network)
    task.register_parameter("unused", nn.Parameter(torch.ones(2, 2).double()))
    start = weights(task)
    run, places = looks(UPDATES[name](), task, batches(2), lr=0.1, optimizer=partial(adamw, lr=0.1))
    for there in (*places, run.weights):
        for key in start:
            if key == "unused" or ".embeddings." in key:
                same(there[key], start[key])
    assert task.get_parameter("unused").grad is None
    assert set(run.gradients[0]) == {k for k in start if ".embeddings." not in k} - {"unused"}


@pytest.mark.parametrize("name", ["sam", "asam", "awp", "backstitch"])
def test_the_first_gradient_makes_room_for_the_second(name: str):
    """It is of the model's size, and of no more use."""
    first: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    class Watch(Recorder):
        def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
            if self.again:
                gc.collect()
                alive.extend(ref() is not None for ref in first)
            return super().logits(batch, delta)

        def _look_again(self, optimizer: Optimizer) -> None:
            first.extend(weakref.ref(cast(Tensor, w.grad)) for w in self.task.parameters())
            super()._look_again(optimizer)

    fit(recording(FineTune, Watch)(classify(bert()), sgd(update=UPDATES[name]())), batches())
    assert alive and not any(alive)


# ---- dropout, noise and statistics ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name, method",
    [("sam", method) for method in METHODS]
    + [(name, method) for name in NEUTRAL for method in ("finetune", "freelb", "smart")],
)
def test_a_neutral_second_look_sees_what_the_first_saw_and_leaves_no_trace(name: str, method: str):
    """Dropout masks, random starts, statistics: of every micro-batch, and of the steps after."""
    data = [part for batch in batches(2) for part in cut(batch, 1, 3)]
    options = {"accumulate_grad_batches": 2, "optimizer": partial(adamw, lr=0.01)}
    plain = fit(METHODS[method](classify(small(0.3)), sgd(**options)), data)
    descent = sgd(update=NEUTRAL[name](), **options)
    still = fit(METHODS[method](classify(small(0.3)), descent), data)
    same(still.gradients, plain.gradients)
    same(still.weights, plain.weights)
    seen, count = still.module.seen, len(plain.module.seen) // 2
    assert len(seen) == 4 * count
    for look in (0, 2 * count):
        for first, second in zip(seen[look:][:count], seen[look + count :][:count], strict=True):
            if "penalty" not in name:  # whose second look is elsewhere, and does not count
                same((second.logits, second.delta), (first.logits, first.delta))


@every_update
def test_random_starts_are_the_same_and_what_follows_is_perturbed_anew(name: str):
    run = fit(METHODS["freelb"](classify(bert()), sgd(update=UPDATES[name]())), batches())
    first, second = run.module.seen[:4], run.module.seen[4:]
    assert len(second) == 4
    assert first[0].moved.abs().max() > 0
    same(second[0].moved, first[0].moved)
    assert not torch.equal(second[1].moved, first[1].moved)


@every_update
@pytest.mark.parametrize("parts", [1, 2])
def test_batch_norm_statistics_move_once(name: str, parts: int):
    def train(**options: Any) -> Tensors:
        network = MeanPool(norm=True)
        options = {"accumulate_grad_batches": parts, **options}
        fit(FINETUNE(classify(network), sgd(lr=0.0, **options)), batches(2 * parts))
        assert network.norm is not None
        return dict(network.norm.named_buffers())

    same(train(update=UPDATES[name]()), train())
