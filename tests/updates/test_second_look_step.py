"""What all updates share that look at an effective batch twice: the batch, and the step."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from places import UPDATES, Bowl, Standing, every_update, flat, gradient_at, looks, moved, small
from testbed import (
    FINETUNE,
    METHODS,
    Floodable,
    MeanPool,
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
from torch import Tensor

from lit_adv.descent import Descent, Schedule
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.finetune import FineTune
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch

seeking = pytest.mark.parametrize("name", ["sam", "asam", "awp"])


# ---- the effective batch -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["finetune", "freelb", "smart"])
@every_update
def test_a_batch_may_be_cut_into_uneven_micro_batches(name: str, method: str):
    def train(parts: int, data: list[Tensors]) -> Run:
        options = {"accumulate_grad_batches": parts, "proximal": MBPP(weight=1.0)}
        descent = sgd(lr=0.1, update=UPDATES[name](), gradient_clip_val=0.5, **options)
        return fit(METHODS[method](classify(small()), descent), data)

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


@pytest.mark.filterwarnings(
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
    "ignore:.*create the checkpoint need to be provided",
)
@every_update
def test_a_training_resumed_within_an_epoch_goes_on_with_two_looks(name: str, tmp_path: Path):
    """All batches are the same: which ones are left is another matter."""

    def train(**options: Any) -> Run:
        descent = sgd(
            update=UPDATES[name](), accumulate_grad_batches=2, flood=Fixed(0.7), gradient_clip_val=1
        )
        return fit(FINETUNE(Floodable(bert(0.3)), descent), batches() * 8, **options)

    class Save(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.fit_loop.batch_idx}.ckpt")

    whole = train(callbacks=[Save()])
    rest = train(resume=str(tmp_path / "3.ckpt"), seed=7)
    assert len(rest.module.seen) == 8
    same(rest.gradients, whole.gradients[2:])
    same(rest.weights, whole.weights)


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
    module = recording(FineTune, Standing)(classify(small()), sgd(update=update))
    run = fit(module, data)
    places, look = cast(Standing, module).places, 0
    assert len(places) == 9
    for step, batch in enumerate(data):
        plain = gradient_at(small(), [batch], places[look])
        if step in (2, 5):
            alone = classify(small())
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


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # after a skipped step
@pytest.mark.parametrize("name", ["sam", "asam", "awp", "penalty"])
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

    module = FINETUNE(Cliff(small(), num_labels=2), sgd(update=UPDATES[name]()))
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
