"""Alternate: descent and ascent with two learning rates."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from places import Bowl, flat, gradient_at, order
from testbed import (
    FINETUNE,
    MeanPool,
    Recorder,
    Tensors,
    batches,
    classify,
    close,
    cut,
    fit,
    same,
    scaled,
    sgd,
    weights,
)
from torch import nn

from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.updates.alternate import Alternate


class Path_(L.Callback):
    """The weights after every batch."""

    def __init__(self) -> None:
        self.weights: list[Tensors] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        assert isinstance(pl_module, Recorder)
        self.weights.append(weights(pl_module.task))


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_even_steps_descend_and_odd_ones_climb_more_slowly(ratio: float):
    network, data = MeanPool(bend=True), batches(5)
    there = weights(classify(network))
    run = fit(FINETUNE(classify(MeanPool(bend=True)), sgd(lr=0.3, update=Alternate(ratio))), data)
    for step, batch in enumerate(data):
        grad = gradient_at(network, [batch], there)
        close(run.gradients[step], grad)
        rate = -0.3 * ratio if step % 2 else 0.3
        there = {name: there[name] - rate * grad[name] for name in there}
    close(run.weights, there)


def test_it_counts_optimizer_steps_and_not_batches():
    data = batches(4, size=6)
    whole = fit(FINETUNE(classify(MeanPool()), sgd(update=Alternate(0.5))), data)
    descent = sgd(update=Alternate(0.5), accumulate_grad_batches=3)
    small = [part for batch in data for part in cut(batch, 1, 2, 3)]
    parts = fit(FINETUNE(classify(MeanPool()), descent), small)
    close(parts.weights, whole.weights)
    assert whole.rates == parts.rates == pytest.approx([0.1, -0.05, 0.1, -0.05])


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_on_a_quadratic_a_pair_of_steps_is_that_of_the_closed_form(ratio: float):
    bowl, eye = Bowl(tilt=0.0), torch.eye(6).double()
    expected = (eye + ratio * 0.2 * bowl.Q) @ (eye - 0.2 * bowl.Q) @ bowl.x.detach()
    fit(FINETUNE(bowl, sgd(lr=0.2, update=Alternate(ratio))), batches(2))
    close(bowl.x.detach(), expected)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_a_pair_of_steps_descends_the_loss_and_the_square_of_its_gradient_to_third_order(
    ratio: float,
):
    """`(e1 - e2) L + e1 e2 / 2 ||grad L||^2`, also where the rates are the same."""
    (batch,) = batches()

    def error(lr: float) -> float:
        network = MeanPool(bend=True)
        named = dict(network.named_parameters())
        logits = network(batch["input_ids"], batch["attention_mask"]).logits
        mean = nn.functional.cross_entropy(logits, batch["labels"])
        first = torch.autograd.grad(mean, list(named.values()), create_graph=True)
        square = torch.stack([g.square().sum() for g in first]).sum()
        objective = (lr - ratio * lr) * mean + ratio * lr**2 / 2 * square
        grads = torch.autograd.grad(objective, list(named.values()))
        expected = torch.cat(
            [(w - g).detach().flatten() for w, g in zip(named.values(), grads, strict=True)]
        )
        descent = sgd(lr=lr, update=Alternate(ratio))
        run = fit(FINETUNE(classify(network), descent), [batch, batch])
        return float((flat(run.weights) - expected).norm())

    errors = [error(lr) for lr in (0.1, 0.05, 0.025, 0.0125)]
    assert order(errors) == pytest.approx(3.0, abs=0.1)


def test_moments_see_every_gradient_with_its_own_sign():
    """By hand; the weights climb along the moments."""
    network, data = MeanPool(bend=True), batches(4)
    there = weights(classify(network))
    m, v = scaled(there, 0.0), scaled(there, 0.0)
    for step, batch in enumerate(data, start=1):
        grad = gradient_at(network, [batch], there)
        rate = 0.01 if step % 2 else -0.002
        for name, w in there.items():
            m[name] = 0.9 * m[name] + 0.1 * grad[name]
            v[name] = 0.999 * v[name] + 0.001 * grad[name] ** 2
            decay = 0.1 if step % 2 and w.ndim > 1 else 0.0
            root = (v[name] / (1 - 0.999**step)).sqrt() + 1e-8
            there[name] = w - rate * decay * w - rate * m[name] / (1 - 0.9**step) / root
    descent = sgd(optimizer=partial(adamw, lr=0.01, weight_decay=0.1), update=Alternate(0.2))
    run = fit(FINETUNE(classify(network), descent), data)
    close(run.weights, there, rtol=1e-7)
    (optimizer,) = run.trainer.optimizers
    for name, weight in run.module.task.named_parameters():
        close(optimizer.state[weight]["exp_avg"], m[name], rtol=1e-7)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, adamw])
def test_weights_decay_at_descents_only(optimizer: Any):
    bowl = Bowl(tilt=0.0)
    bowl.Q.zero_()
    start = weights(bowl)["network.matrix"]
    descent = sgd(optimizer=partial(optimizer, lr=0.1, weight_decay=0.5), update=Alternate(0.5))
    path = Path_()
    fit(FINETUNE(bowl, descent), batches(4), callbacks=[path])
    for place, power in zip(path.weights, (1, 1, 2, 2), strict=True):
        close(place["network.matrix"], 0.95**power * start)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, adamw])
def test_a_ratio_of_zero_skips_every_second_batch(optimizer: Any):
    path = Path_()
    descent = sgd(optimizer=partial(optimizer, lr=0.1), update=Alternate(0.0))
    fit(FINETUNE(classify(MeanPool()), descent), batches(6), callbacks=[path])
    for step in (0, 2, 4):
        same(path.weights[step + 1], path.weights[step])
        assert step == 0 or not torch.equal(flat(path.weights[step]), flat(path.weights[step - 1]))


@pytest.mark.parametrize(
    "interval, rates", [("step", [1.0, -0.08, 0.6, -0.04, 0.2]), ("epoch", [1, -0.1, 1, -0.1, 1])]
)
def test_both_rates_follow_the_schedule(interval: Any, rates: list[float]):
    descent = Descent(
        optimizer=partial(torch.optim.SGD, lr=1.0),
        schedule=Schedule(name="linear", warmup=0.0, interval=interval),
        update=Alternate(0.1),
    )
    run = fit(FINETUNE(classify(MeanPool()), descent), batches(5))
    assert run.rates == pytest.approx(rates)
    assert all(group["lr"] == 0 for group in run.trainer.optimizers[0].param_groups)


@pytest.mark.filterwarnings("ignore:.*create the checkpoint need to be provided")
def test_a_resumed_training_goes_on_with_the_step_that_is_due(tmp_path: Path):
    def train(**options: Any) -> Any:
        descent = sgd(update=Alternate(0.5))
        return fit(FINETUNE(classify(MeanPool()), descent), batches(3), epochs=2, **options)

    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = train(callbacks=[save], enable_checkpointing=True)
    rest = train(resume=str(tmp_path / "epoch=0.ckpt"))
    assert rest.rates == whole.rates[3:] == pytest.approx([-0.05, 0.1, -0.05])
    same(rest.weights, whole.weights)


@pytest.mark.parametrize("ratio", [-0.1, math.nan])
def test_values_out_of_range_are_refused(ratio: float):
    with pytest.raises(ValueError, match=r"^update\.ratio=.*at least 0"):
        Alternate(ratio)
