"""SAM: the gradient at the worst weights within a radius."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from places import Bowl, flat, gradient_at, looks, moved
from testbed import FINETUNE, MeanPool, batches, bert, classify, close, cut, fit, same, sgd, weights
from torch import nn

from lit_adv.descent import adamw
from lit_adv.updates.sam import SAM


@pytest.mark.parametrize("radius", [1e-3, 0.05, 2.0])
def test_the_displacement_is_as_long_as_the_radius_and_goes_straight_uphill(radius: float):
    network, data = bert(), batches()
    start = weights(classify(network))
    _, places = looks(SAM(radius), classify(network), data)
    eps, grad = flat(moved(places)), flat(gradient_at(network, data, start))
    assert float(eps.norm()) == pytest.approx(radius, rel=1e-9)
    close(eps, radius * grad / grad.norm(), rtol=1e-7)


@pytest.mark.parametrize("radius", [0.05, 2.0])
def test_on_a_quadratic_the_gradient_is_that_of_the_closed_form(radius: float):
    bowl, data = Bowl(), batches(size=6)
    x, g = bowl.x.detach(), bowl.slope(data, bowl.x.detach())
    run, _ = looks(SAM(radius), bowl, data)
    close(flat(run.gradients[0]), bowl.slope(data, x + radius * g / g.norm()))


@pytest.mark.parametrize("cuts", [(6,), (1, 3, 2)])
def test_the_step_goes_along_the_gradient_at_the_displaced_weights(cuts: tuple[int, ...]):
    network, data = bert(), cut(batches(size=6)[0], *cuts)
    start = weights(classify(network))
    grad = gradient_at(network, data, start)
    norm = flat(grad).norm()
    there = {name: start[name] + 0.3 / norm * grad[name] for name in start}
    expected = gradient_at(network, data, there)
    run, _ = looks(SAM(0.3), classify(network), data, lr=0.5)
    close(run.gradients[0], expected)
    close(run.weights, {name: start[name] - 0.5 * expected[name] for name in start})


def test_the_norm_is_one_over_all_weights_that_train_and_frozen_ones_stay():
    network, data = bert(), batches()
    network.bert.embeddings.requires_grad_(False)
    _, places = looks(SAM(0.3), classify(network), data)
    eps = moved(places)
    assert float(flat(eps).norm()) == pytest.approx(0.3, rel=1e-9)
    for name, value in eps.items():
        assert bool((value == 0).all()) == (".embeddings." in name), name


def test_to_first_order_it_descends_the_loss_plus_radius_times_the_norm_of_its_gradient():
    network, data = MeanPool(bend=True), batches()
    named = dict(network.named_parameters())
    mean = nn.functional.cross_entropy(
        network(data[0]["input_ids"], data[0]["attention_mask"]).logits, data[0]["labels"]
    )
    grads = torch.autograd.grad(mean, list(named.values()), create_graph=True)
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    slopes = torch.autograd.grad(norm, list(named.values()))
    run, _ = looks(SAM(1e-6), classify(network), data)
    for name, grad, slope in zip(named, grads, slopes, strict=True):
        found = (run.gradients[0][f"network.{name}"] - grad.detach()) / 1e-6
        close(found, slope, rtol=0, atol=1e-4)
    assert max(float(slope.abs().max()) for slope in slopes) > 0.1


@pytest.mark.parametrize(
    "optimizer, clip",
    [
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1), None),
        (partial(adamw, lr=0.01, weight_decay=0.1), 0.5),
    ],
)
def test_training_is_a_bare_loop_with_two_gradients_per_step(optimizer: Any, clip: float | None):
    network, data = MeanPool(bend=True), batches(5)
    task = classify(network)
    vectors = [w for w in network.parameters() if w.ndim < 2]
    groups = [
        {"params": [w for w in network.parameters() if w.ndim >= 2]},
        {"params": vectors, "weight_decay": 0.0},
    ]
    bare = optimizer(groups)
    for batch in data:
        start = weights(task)
        grad = gradient_at(network, [batch], start)
        norm = flat(grad).norm()
        there = {name: start[name] + 0.2 / norm * grad[name] for name in start}
        for name, value in gradient_at(network, [batch], there).items():
            task.get_parameter(name).grad = value
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        bare.step()
    descent = sgd(optimizer=optimizer, update=SAM(0.2), gradient_clip_val=clip)
    run = fit(FINETUNE(classify(MeanPool(bend=True)), descent), data)
    close(run.weights, weights(task), rtol=1e-7)


def test_a_radius_of_zero_is_a_plain_step():
    data = batches(3)
    plain = fit(FINETUNE(classify(bert(0.3)), sgd()), data)
    still = fit(FINETUNE(classify(bert(0.3)), sgd(update=SAM(0.0))), data)
    same(still.gradients, plain.gradients)
    same(still.weights, plain.weights)


def test_where_the_gradient_is_zero_nothing_moves():
    bowl = Bowl(tilt=0.0)
    with torch.no_grad():
        for weight in bowl.parameters():
            weight.zero_()
    run, places = looks(SAM(0.5), bowl, batches())
    same(flat(moved(places)), torch.zeros_like(flat(places[0])))
    same(flat(run.gradients[0]), torch.zeros(6).double())


@pytest.mark.parametrize("radius", [-0.1, math.nan])
def test_values_out_of_range_are_refused(radius: float):
    with pytest.raises(ValueError, match=r"^update\.radius=.*at least 0"):
        SAM(radius)
