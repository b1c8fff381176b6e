"""Backstitch: a step back, then a longer step by the gradient found there."""

import math
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from places import Bowl, Standing, flat, gradient_at, looks, moved, order
from testbed import (
    FINETUNE,
    MeanPool,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    recording,
    same,
    sgd,
    weights,
)
from torch import nn

from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.masks.child_d import ChildD
from lit_adv.methods.finetune import FineTune
from lit_adv.updates.backstitch import Backstitch


@pytest.mark.parametrize("scale", [0.3, 1.0])
@pytest.mark.parametrize("lr", [0.01, 0.3])
def test_on_a_quadratic_the_step_is_that_of_the_closed_form(scale: float, lr: float):
    """`x - lr Q x - scale (1 + scale) lr^2 Q^2 x`, exactly."""
    bowl = Bowl(tilt=0.0)
    x, Q = bowl.x.detach(), bowl.Q
    looks(Backstitch(scale), bowl, batches(), lr=lr)
    close(bowl.x.detach(), x - lr * Q @ x - scale * (1 + scale) * lr**2 * Q @ Q @ x)


@pytest.mark.parametrize("cuts", [(6,), (1, 2, 3)])
def test_both_steps_go_along_the_gradient_of_the_same_effective_batch(cuts: tuple[int, ...]):
    network, data = bert(), cut(batches(size=6)[0], *cuts)
    start = weights(classify(network))
    grad = gradient_at(network, data, start)
    back = {name: start[name] + 0.5 * 0.2 * grad[name] for name in start}
    there = gradient_at(network, data, back)
    run, places = looks(Backstitch(0.5), classify(network), data, lr=0.2)
    close(places[-1], back)
    close(run.gradients[0], there)
    close(run.weights, {name: back[name] - 1.5 * 0.2 * there[name] for name in back})


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_it_descends_the_loss_and_the_square_of_its_gradient_to_third_order(scale: float):
    """`L + scale (1 + scale) lr / 2 ||grad L||^2`."""
    (batch,) = batches()

    def error(lr: float) -> float:
        network = MeanPool(bend=True)
        named = dict(network.named_parameters())
        logits = network(batch["input_ids"], batch["attention_mask"]).logits
        mean = nn.functional.cross_entropy(logits, batch["labels"])
        first = torch.autograd.grad(mean, list(named.values()), create_graph=True)
        square = torch.stack([g.square().sum() for g in first]).sum()
        penalised = mean + scale * (1 + scale) * lr / 2 * square
        grads = torch.autograd.grad(penalised, list(named.values()))
        expected = torch.cat(
            [(w - lr * g).detach().flatten() for w, g in zip(named.values(), grads, strict=True)]
        )
        run, _ = looks(Backstitch(scale), classify(network), [batch], lr=lr)
        return float((flat(run.weights) - expected).norm())

    errors = [error(lr) for lr in (0.1, 0.05, 0.025, 0.0125)]
    assert order(errors) == pytest.approx(3.0, abs=0.1)


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": [w for w in network.parameters() if w.ndim >= 2]},
        {"params": [w for w in network.parameters() if w.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("amsgrad", [False, True])
def test_under_adamw_the_step_back_is_one_that_an_optimizer_without_momentum_would_take(
    amsgrad: bool,
):
    """A copy of the optimizer, with its state, steps for real: at each of five steps."""
    network, data = MeanPool(bend=True), batches(5)
    task = classify(network)
    optimizer = torch.optim.AdamW(_groups(network), lr=0.01, weight_decay=0.1, amsgrad=amsgrad)
    backs = []
    for batch in data:
        start = weights(task)
        grad = gradient_at(network, [batch], start)
        shadow, copied = deepcopy((task, optimizer))
        for group in copied.param_groups:
            group.update(betas=(0.0, 0.999), weight_decay=0.0, lr=0.5 * 0.01)
        for name, weight in shadow.named_parameters():
            weight.grad = grad[name]
        copied.step()
        stepped = weights(shadow)
        backs.append({name: start[name] - stepped[name] for name in start})  # the other way
        back = {name: start[name] + backs[-1][name] for name in start}
        there = gradient_at(network, [batch], back)
        for name, weight in task.named_parameters():
            weight.data = back[name].clone()
            weight.grad = there[name]
        for group in optimizer.param_groups:
            group["lr"] = 1.5 * 0.01
        optimizer.param_groups[0]["weight_decay"] = 0.1 / 1.5
        optimizer.step()

    descent = sgd(
        optimizer=partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, amsgrad=amsgrad),
        update=Backstitch(0.5),
    )
    module = recording(FineTune, Standing)(classify(MeanPool(bend=True)), descent)
    run = fit(module, data)
    assert isinstance(module, Standing)
    found = [moved(module.places[look : look + 2]) for look in range(0, 10, 2)]
    close(found, backs)
    close(run.weights, weights(task), rtol=1e-7)


def test_the_optimizers_moments_see_the_second_gradients_alone():
    module = FINETUNE(classify(MeanPool(bend=True)), sgd(optimizer=adamw, update=Backstitch(0.5)))
    run = fit(module, batches(4))
    (optimizer,) = run.trainer.optimizers
    for name, weight in module.task.named_parameters():
        first, second = torch.zeros_like(weight), torch.zeros_like(weight)
        for grads in run.gradients:
            first, second = 0.9 * first + 0.1 * grads[name], 0.999 * second
            second = second + 0.001 * grads[name].square()
        state = optimizer.state[weight]
        assert state["step"] == 4
        close(state["exp_avg"], first.detach())
        close(state["exp_avg_sq"], second.detach())


@pytest.mark.parametrize("optimizer", [adamw, torch.optim.SGD])
def test_weight_decay_counts_once(optimizer: Any):
    """At a loss without slope, only the decay moves."""
    bowl = Bowl(tilt=0.0)
    bowl.Q.zero_()
    start = weights(bowl)
    fit(
        FINETUNE(
            bowl,
            sgd(optimizer=partial(optimizer, lr=0.1, weight_decay=0.5), update=Backstitch(0.7)),
        ),
        batches(),
    )
    close(bowl.get_parameter("network.matrix").detach(), 0.95 * start["network.matrix"])
    close(bowl.get_parameter("network.vector").detach(), start["network.vector"])


def test_both_steps_follow_the_schedule_and_leave_its_rate_as_it_is():
    bowl, xs = Bowl(tilt=0.0), []
    descent = Descent(
        optimizer=partial(torch.optim.SGD, lr=0.2),
        schedule=Schedule(name="linear", warmup=0.0),
        update=Backstitch(0.5),
    )
    x = bowl.x.detach()
    for rate in (0.2, 0.15, 0.1, 0.05):
        x = x - rate * bowl.Q @ x - 0.75 * rate**2 * bowl.Q @ bowl.Q @ x
        xs.append(x)
    run = fit(FINETUNE(bowl, descent), batches(4))
    close(bowl.x.detach(), xs[-1])
    assert run.rates == pytest.approx([1.5 * rate for rate in (0.2, 0.15, 0.1, 0.05)])
    assert run.trainer.optimizers[0].param_groups[0]["lr"] == 0


def test_both_gradients_are_clipped():
    bowl, data = Bowl(), batches()
    x = bowl.x.detach()
    g = bowl.slope(data, x)
    back = x + 0.5 * 0.1 * g * 0.3 / (g.norm() + 1e-6)
    there = bowl.slope(data, back)
    assert min(g.norm(), there.norm()) > 0.6
    looks(Backstitch(0.5), bowl, data, lr=0.1, gradient_clip_val=0.3)
    close(bowl.x.detach(), back - 1.5 * 0.1 * there * 0.3 / (there.norm() + 1e-6))


def test_weights_that_are_masked_do_not_step_back_either():
    mask = ChildD(share=0.5, only="encoder")
    task = classify(bert())
    start = weights(task)
    run, places = looks(Backstitch(0.5), task, batches(), lr=0.1, mask=mask)
    for there in (places[-1], run.weights):
        moves = {name: there[name] != start[name] for name in start}
        assert sum(int(moves[name][kept].sum()) for name, kept in mask._masks.items()) > 500
        for name, kept in mask._masks.items():
            assert not moves[name][~kept].any(), name


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, adamw])
def test_a_scale_of_zero_is_a_plain_step(optimizer: Any):
    data, rate = batches(3), partial(optimizer, lr=0.01, weight_decay=0.1)
    plain = fit(FINETUNE(classify(bert(0.3)), sgd(optimizer=rate)), data)
    still = fit(FINETUNE(classify(bert(0.3)), sgd(optimizer=rate, update=Backstitch(0.0))), data)
    same(still.gradients, plain.gradients)
    same(still.weights, plain.weights)


def test_at_the_steps_between_it_is_plain_descent():
    bowl = Bowl(tilt=0.0)
    x, Q = bowl.x.detach(), bowl.Q
    update = Backstitch(1.0, start_step=1, every_n_steps=2)
    for step in range(4):
        x = x - 0.1 * Q @ x - (2 * 0.1**2 * Q @ Q @ x if step in (1, 3) else 0)
    fit(FINETUNE(bowl, sgd(lr=0.1, update=update)), batches(4))
    close(bowl.x.detach(), x)


@pytest.mark.parametrize("scale", [-0.1, math.nan])
def test_values_out_of_range_are_refused(scale: float):
    with pytest.raises(ValueError, match=r"^update\.scale=.*at least 0"):
        Backstitch(scale)
