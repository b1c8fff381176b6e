"""What all updates share that look at an effective batch a second time."""

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from places import Bowl, Standing, flat, gradient_at, looks, moved
from testbed import (
    FINETUNE,
    METHODS,
    Floodable,
    MeanPool,
    Recorder,
    Run,
    Tensors,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    recording,
    same,
    scaled,
    sgd,
    weights,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.finetune import FineTune
from lit_adv.methods.tavat import TAVAT
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import SecondLook

UPDATES: dict[str, Callable[..., SecondLook]] = {
    "sam": partial(SAM, 0.3),
    "asam": partial(ASAM, 0.5),
    "awp": partial(AWP, 0.1, step_size=0.1),
    "awp by weight": partial(AWP, 0.1, step_size=1.0, bound="weight"),
    "penalty": partial(GradientPenalty, 0.2, radius=0.3),
    "penalty of the square": partial(GradientPenalty, 0.2, radius=0.3, of="square"),
    "backstitch": partial(Backstitch, 0.5),
}
NEUTRAL: dict[str, Callable[..., SecondLook]] = {
    "sam": partial(SAM, 0.0),
    "asam": partial(ASAM, 0.0),
    "awp": partial(AWP, 0.0),
    "awp by weight": partial(AWP, 0.0, bound="weight"),
    "penalty": partial(GradientPenalty, 0.0),
    "penalty of the square": partial(GradientPenalty, 0.0, of="square"),
    "backstitch": partial(Backstitch, 0.0),
}
every_update = pytest.mark.parametrize("name", UPDATES)
every_method = pytest.mark.parametrize("method", METHODS)
seeking = pytest.mark.parametrize("name", ["sam", "asam", "awp", "awp by weight"])


def _small(dropout: float = 0.0) -> MeanPool:
    return MeanPool(width=16, bend=True, dropout=dropout)


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
def test_an_error_in_the_second_look_leaves_weights_statistics_and_seeds_as_they_were(
    name: str, where: str
):
    class Fails(Classification):
        count = 0

        def losses(self, logits: Tensor, batch: Batch) -> Tensor:
            self.count += 1
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

    def move(weights: Sequence[Tensor], grads: Sequence[Tensor], optimizer: Optimizer) -> None:
        weights[0].add_(1.0)
        raise ArithmeticError

    update.move = move


@every_update
def test_weights_without_a_gradient_and_frozen_ones_stay(name: str):
    network = bert()
    network.bert.embeddings.requires_grad_(False)
    task = classify(network)
    task.register_parameter("unused", nn.Parameter(torch.ones(2, 2)))
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


@every_method
@every_update
def test_a_neutral_second_look_sees_what_the_first_saw_and_leaves_no_trace(name: str, method: str):
    """Dropout masks, random starts, statistics: of every micro-batch, and of the steps after."""
    data = [part for batch in batches(2) for part in cut(batch, 1, 3)]
    options = {"accumulate_grad_batches": 2, "optimizer": partial(adamw, lr=0.01)}
    plain = fit(METHODS[method](classify(_small(0.3)), sgd(**options)), data)
    descent = sgd(update=NEUTRAL[name](), **options)
    still = fit(METHODS[method](classify(_small(0.3)), descent), data)
    same(still.gradients, plain.gradients)
    same(still.weights, plain.weights)
    seen, count = still.module.seen, len(plain.module.seen) // 2
    assert len(seen) == 4 * count
    for look in (0, 2 * count):
        for first, second in zip(seen[look:][:count], seen[look + count :][:count], strict=True):
            same(second.logits, first.logits)
            same(second.delta, first.delta)


@every_update
def test_random_starts_are_the_same_and_what_follows_is_perturbed_anew(name: str):
    module = METHODS["freelb"](classify(bert()), sgd(update=UPDATES[name]()))
    first, second = (part.seen for part in _halves(fit(module, batches())))
    assert len(first) == len(second) == 4
    assert first[0].moved.abs().max() > 0
    same(second[0].moved, first[0].moved)
    assert not torch.equal(second[1].moved, first[1].moved)


class _Half:
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen


def _halves(run: Run) -> tuple[_Half, _Half]:
    middle = len(run.module.seen) // 2
    return _Half(run.module.seen[:middle]), _Half(run.module.seen[middle:])


@pytest.mark.parametrize("name", ["sam", "backstitch"])
def test_a_method_that_remembers_starts_its_second_look_where_its_first_started(name: str):
    options: dict[str, Any] = {"steps": 2, "step_size": 0.3, "radius": 0.5, "init_size": 0.4}
    data = batches(3)
    plain = fit(recording(TAVAT)(classify(_small()), sgd(), **options), data)
    descent = sgd(update=NEUTRAL[name]())
    still = fit(recording(TAVAT)(classify(_small()), descent, **options), data)
    same(still.weights, plain.weights)


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


# ---- the effective batch -------------------------------------------------------------------------


@every_method
@every_update
def test_a_batch_may_be_cut_into_uneven_micro_batches(name: str, method: str):
    def train(parts: int, data: list[Tensors]) -> Run:
        options = {"accumulate_grad_batches": parts, "proximal": MBPP(weight=1.0)}
        descent = sgd(lr=0.1, update=UPDATES[name](), gradient_clip_val=0.5, **options)
        return fit(METHODS[method](classify(_small()), descent), data)

    data = batches(2, size=6)
    whole = train(1, data)
    parts = train(3, [part for batch in data for part in cut(batch, 1, 3, 2)])
    close(parts.gradients, whole.gradients)
    close(parts.weights, whole.weights)
    assert parts.trainer.global_step == whole.trainer.global_step == 2


@every_update
def test_an_epochs_last_window_may_be_shorter(name: str):
    data = batches(5)
    descent = sgd(lr=0.0, update=UPDATES[name](), accumulate_grad_batches=3)
    run = fit(FINETUNE(classify(bert()), descent), data)
    for grads, window in zip(run.gradients, (data[:3], data[3:]), strict=True):
        alone, _ = looks(UPDATES[name](), classify(bert()), window)
        close(grads, alone.gradients[0])


@every_update
def test_two_looks_are_one_optimizer_step(name: str):
    descent = Descent(
        optimizer=partial(torch.optim.SGD, lr=1e-3),
        schedule=Schedule(name="linear", warmup=0.0),
        update=UPDATES[name](),
        accumulate_grad_batches=2,
    )
    run = fit(FINETUNE(classify(MeanPool()), descent), batches(8))
    assert run.trainer.global_step == len(run.gradients) == 4
    factor = 1.5 if name == "backstitch" else 1.0
    expected = [factor * 1e-3 * left / 4 for left in (4, 3, 2, 1)]
    assert run.rates == pytest.approx(expected)
    assert len(run.module.seen) == 16


@every_update
def test_second_looks_begin_at_the_start_step_and_come_every_few_steps(name: str):
    """By optimizer steps; the others are plain."""
    data, update = batches(7), UPDATES[name](start_step=2, every_n_steps=3)
    module = recording(FineTune, Standing)(classify(_small()), sgd(update=update))
    run = fit(module, data)
    places, look = cast(Standing, module).places, 0
    assert len(places) == 9
    for step, batch in enumerate(data):
        plain = gradient_at(_small(), [batch], places[look])
        if step in (2, 5):
            alone = classify(_small())
            alone.load_state_dict(places[look])
            expected, _ = looks(UPDATES[name](), alone, [batch], lr=0.1)
            close(run.gradients[step], expected.gradients[0])
            assert not torch.allclose(flat(run.gradients[step]), flat(plain))
        else:
            close(run.gradients[step], plain)
        look += 2 if step in (2, 5) else 1


# ---- what the step is made of --------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in UPDATES if name != "backstitch"])
def test_only_what_the_optimizer_steps_along_is_clipped(name: str):
    bowl, data = Bowl(), batches()
    start = bowl.x.detach()
    free, there = looks(UPDATES[name](), Bowl(), data)
    run, places = looks(UPDATES[name](), bowl, data, lr=1.0, gradient_clip_val=0.1)
    same(moved(places), moved(there))
    same(run.gradients, free.gradients)
    grad = flat(run.gradients[0])
    assert grad.norm() > 0.2
    close(start - bowl.x.detach(), 0.1 * grad / (grad.norm() + 1e-6))


@seeking
@pytest.mark.parametrize("flood", [Fixed, Individual])
def test_an_adversary_of_weights_does_not_see_the_flood_and_the_step_does(name: str, flood: Any):
    data = cut(batches(size=6)[0], 2, 4)
    dry, there = looks(UPDATES[name](), Floodable(bert()), data)
    wet, places = looks(UPDATES[name](), Floodable(bert()), data, flood=flood(1e3))
    same(places, there)
    close(wet.gradients[0], scaled(dry.gradients[0], -1))
    assert wet.logs[-1]["flood/share"] == 1


@seeking
def test_the_flood_compares_the_loss_at_the_displaced_weights(name: str):
    """At a level between the losses of both looks nothing is turned."""
    data = batches()
    dry, _ = looks(UPDATES[name](), Floodable(bert()), data)
    first, second = (float(each.losses.mean()) for each in dry.module.seen)
    assert second > first + 0.01
    for level, sign in ((first / 2 + second / 2, 1), (second + 0.01, -1)):
        wet, _ = looks(UPDATES[name](), Floodable(bert()), data, flood=Fixed(level))
        close(wet.gradients[0], scaled(dry.gradients[0], sign))
        assert wet.logs[0]["flood/share"] == (sign < 0)


@every_update
def test_what_is_logged_is_of_the_first_look(name: str):
    def train(**options: Any) -> Run:
        descent = sgd(lr=0.0, accumulate_grad_batches=2, **options)
        return fit(METHODS["freelb"](classify(bert()), descent), batches(4))

    plain, twice = train(), train(update=UPDATES[name]())
    for a, b in zip(plain.logs[1::2], twice.logs[1::2], strict=True):
        assert a == b and "train/loss" in a and "loss/adversarial" in a


@every_update
def test_under_autocast_the_second_look_is_taken_at_the_displaced_weights(name: str):
    """Half-precision copies of the weights from the first look must not be used again."""
    full, _ = looks(UPDATES[name](), classify(bert()), batches(2), lr=1e-3)
    descent = sgd(lr=1e-3, update=UPDATES[name](), accumulate_grad_batches=2)
    run = fit(FINETUNE(classify(bert().float()), descent), batches(2), precision="bf16-mixed")
    plain = fit(FINETUNE(classify(bert()), sgd(accumulate_grad_batches=2)), batches(2))
    expected, found = flat(full.gradients[0]), flat(run.gradients[0]).double()
    error = (found - expected).norm()
    assert error < 0.02 * expected.norm()
    if name != "backstitch":  # whose step is too short for half precision to see
        assert error < 0.2 * (expected - flat(plain.gradients[0])).norm()


@pytest.mark.parametrize("name", ["sam", "asam", "awp", "awp by weight", "penalty"])
@pytest.mark.parametrize("scale", [2.0**10, 2.0**120])
def test_in_float16_the_loss_scale_is_no_part_of_the_displacement(name: str, scale: float):
    """And where it overflows, the step is skipped and the weights stay."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
    task = classify(bert().float())
    start, module = weights(task), FINETUNE(task, sgd(update=UPDATES[name]()))
    run = fit(module, batches(), precision=None, plugins=[plugin])
    if scale > 1e30:
        same(run.weights, start)
        return
    full, _ = looks(UPDATES[name](), classify(bert()), batches())
    expected, found = flat(full.gradients[0]), flat(run.gradients[0]).double()
    assert (found - expected).norm() < 0.02 * expected.norm()


@every_update
def test_a_loss_that_is_not_finite_at_the_displaced_weights_ends_the_training(name: str):
    class Cliff(Classification):
        def losses(self, logits: Tensor, batch: Batch) -> Tensor:
            if not hasattr(self, "home"):
                self.home = weights(self)
            away = not torch.equal(flat(weights(self)), flat(self.home))
            return super().losses(logits, batch) * (torch.nan if away else 1.0)

    module = FINETUNE(Cliff(_small(), num_labels=2), sgd(update=UPDATES[name]()))
    with pytest.raises(FloatingPointError, match="optimizer step 0"):
        fit(module, batches(1))


@every_update
@pytest.mark.parametrize(
    "options, line",
    [
        ({"start_step": -1}, r"^update\.start_step=-1: .*at least 0"),
        ({"start_step": 0.5}, r"^update\.start_step=0\.5: .*whole number"),
        ({"every_n_steps": 0}, r"^update\.every_n_steps=0: .*at least 1"),
    ],
)
def test_steps_out_of_range_are_refused(name: str, options: dict[str, Any], line: str):
    with pytest.raises(ValueError, match=line):
        UPDATES[name](**options)
