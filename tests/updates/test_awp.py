"""AWP: the gradient at weights of which every matrix is displaced by its own relative radius."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from places import Bowl, flat, gradient_at, looks, moved
from testbed import FINETUNE, Tensors, batches, bert, classify, close, cut, fit, same, sgd, weights

from lit_adv.updates.awp import AWP


def _projected(start: Tensors, grad: Tensors, step: float, radius: float) -> Tensors:
    """As in the paper: a step, then back into the ball."""
    there = {}
    for name, w in start.items():
        v = torch.zeros_like(w)
        if w.ndim > 1 and grad[name].norm() > 0:
            v = step * w.norm() * grad[name] / grad[name].norm()
            if v.norm() > radius * w.norm():
                v = v * radius * w.norm() / v.norm()
        there[name] = w + v
    return there


def _boxed(start: Tensors, grad: Tensors, step: float, radius: float) -> Tensors:
    """As winners of competitions have it: a step, then back into the box."""
    there = {}
    for name, w in start.items():
        v = torch.zeros_like(w)
        if w.ndim > 1 and grad[name].norm() > 0:
            v = step * w.norm() * grad[name] / grad[name].norm()
        there[name] = torch.minimum(
            torch.maximum(w + v, w - radius * w.abs()), w + radius * w.abs()
        )
    return there


FORMS: list[tuple[str, float, float]] = [
    ("tensor", 0.01, 0.1),
    ("tensor", 0.1, 0.1),
    ("tensor", 0.5, 0.02),
    ("weight", 1.0, 0.01),
    ("weight", 0.01, 0.02),
]


@pytest.mark.parametrize("cuts", [(6,), (1, 2, 3)])
@pytest.mark.parametrize("bound, step, radius", FORMS)
def test_the_step_goes_along_the_gradient_at_the_displaced_matrices(
    bound: Any, step: float, radius: float, cuts: tuple[int, ...]
):
    network, data = bert(), cut(batches(size=6)[0], *cuts)
    start = weights(classify(network))
    grad = gradient_at(network, data, start)
    there = (_projected if bound == "tensor" else _boxed)(start, grad, step, radius)
    update = AWP(radius, step_size=step, bound=bound)
    run, places = looks(update, classify(network), data)
    close(places[-1], there)
    close(run.gradients[0], gradient_at(network, data, there))


@pytest.mark.parametrize("step, radius", [(0.01, 0.1), (0.3, 0.02)])
def test_each_matrix_moves_by_its_own_relative_length_and_vectors_stay(step: float, radius: float):
    network = bert()
    start = weights(classify(network))
    _, places = looks(AWP(radius, step_size=step), classify(network), batches())
    lengths = set()
    for name, v in moved(places).items():
        if start[name].ndim < 2:
            assert (v == 0).all(), name
        else:
            lengths.add(round(float(v.norm() / start[name].norm()), 9))
    assert lengths == {min(step, radius)}


def test_no_weight_leaves_its_box_and_a_long_step_fills_it():
    network, data = bert(), batches()
    start = weights(classify(network))
    grad = gradient_at(network, data, start)
    update = AWP(0.01, step_size=1e9, bound="weight")
    _, places = looks(update, classify(network), data)
    for name, v in moved(places).items():
        if start[name].ndim > 1:
            sign = torch.where(grad[name].abs() > 1e-12, grad[name].sign(), v.sign())
            close(v, 0.01 * start[name].abs() * sign, atol=1e-12)


def test_on_a_quadratic_the_gradient_is_that_of_the_closed_form():
    bowl, data = Bowl(), batches(size=6)
    x = bowl.x.detach()
    g = bowl.slope(data, x).clone()
    v = torch.zeros(6).double()
    v[:4] = 0.1 * x[:4].norm() * g[:4] / g[:4].norm()
    run, _ = looks(AWP(0.1, step_size=0.2), bowl, data)
    close(flat(run.gradients[0]), bowl.slope(data, x + v))


def test_growing_a_matrix_grows_its_displacement_alike():
    """So rescaling two layers against each other leaves the effect as it is."""

    def train(factor: float) -> Tensors:
        network = bert()
        with torch.no_grad():
            attention = "bert.encoder.layer.0.attention."
            network.get_parameter(attention + "self.value.weight").mul_(factor)
            network.get_parameter(attention + "self.value.bias").mul_(factor)
            network.get_parameter(attention + "output.dense.weight").div_(factor)
        run, _ = looks(AWP(0.1, step_size=0.1), classify(network), batches())
        first, second = (each.losses for each in run.module.seen)
        assert (second - first).abs().max() > 0.05
        return {"first": first, "second": second}

    close(train(7.0), train(1.0))


@pytest.mark.parametrize("bound", ["tensor", "weight"])
def test_a_matrix_of_zeros_and_one_without_slope_stay(bound: Any):
    zeros, flat_one = Bowl(), Bowl(tilt=0.0)
    with torch.no_grad():
        zeros.get_parameter("network.matrix").zero_()
        for weight in flat_one.parameters():
            weight.zero_()
    for bowl in (zeros, flat_one):
        run, places = looks(AWP(0.5, step_size=1.0, bound=bound), bowl, batches())
        same(flat(moved(places)), torch.zeros_like(flat(places[0])))
        assert flat(run.gradients[0]).isfinite().all()


@pytest.mark.parametrize(
    "update",
    [AWP(0.0), AWP(step_size=0.0), AWP(0.0, bound="weight"), AWP(step_size=0.0, bound="weight")],
)
def test_without_radius_or_step_it_is_a_plain_step(update: AWP):
    data = batches(3)
    plain = fit(FINETUNE(classify(bert(0.3)), sgd()), data)
    still = fit(FINETUNE(classify(bert(0.3)), sgd(update=update)), data)
    same(still.gradients, plain.gradients)
    same(still.weights, plain.weights)


@pytest.mark.parametrize("key", ["radius", "step_size"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_values_out_of_range_are_refused(key: str, value: float):
    with pytest.raises(ValueError, match=rf"^update\.{key}=.*at least 0"):
        partial(AWP, **{key: value})()


def test_an_unknown_bound_is_refused():
    with pytest.raises(ValueError, match=r"^update\.bound=ball: choose one of tensor, weight"):
        AWP(bound="ball")  # pyright: ignore[reportArgumentType]
