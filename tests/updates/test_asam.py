"""ASAM: SAM in units of the weights."""

import math
from functools import partial

import pytest
import torch
from places import Bowl, flat, gradient_at, looks, moved
from testbed import FINETUNE, WORDS, Answer, batches, bert, classify, close, fit, same, sgd, weights
from torch import Tensor, nn

from lit_adv.updates.asam import ASAM
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import Update


@pytest.mark.parametrize("radius, eta", [(0.5, 0.01), (2.0, 0.0), (0.1, 1.0)])
def test_in_units_of_the_weights_the_displacement_is_as_long_as_the_radius(
    radius: float, eta: float
):
    network, data = bert(), batches()
    start = weights(classify(network))
    _, places = looks(ASAM(radius, eta=eta), classify(network), data)
    eps, theta = flat(moved(places)), flat(start)
    units, grad = theta.abs() + eta, flat(gradient_at(network, data, start))
    close(eps, radius * units**2 * grad / (units * grad).norm(), rtol=1e-7)
    there = units > 0
    assert float((eps[there] / units[there]).norm()) == pytest.approx(radius, rel=1e-9)


def test_on_a_quadratic_the_gradient_is_that_of_the_closed_form():
    bowl, data = Bowl(), batches(size=6)
    x, g = bowl.x.detach(), bowl.slope(data, bowl.x.detach())
    T = x.abs() + 0.1
    run, _ = looks(ASAM(0.7, eta=0.1), bowl, data)
    close(flat(run.gradients[0]), bowl.slope(data, x + 0.7 * T**2 * g / (T * g).norm()))


def test_the_step_goes_along_the_gradient_at_the_displaced_weights():
    network, data = bert(), batches()
    start = weights(classify(network))
    grad = gradient_at(network, data, start)
    units = {name: start[name].abs() + 0.01 for name in start}
    norm = flat({name: units[name] * grad[name] for name in grad}).norm()
    there = {name: start[name] + 0.5 / norm * units[name] ** 2 * grad[name] for name in start}
    run, _ = looks(ASAM(0.5, eta=0.01), classify(network), data)
    close(run.gradients[0], gradient_at(network, data, there))


def test_among_weights_of_size_one_it_is_sam():
    def ones() -> Bowl:
        bowl = Bowl()
        with torch.no_grad():
            for weight in bowl.parameters():
                weight.copy_(weight.sign())
        return bowl

    data = batches()
    adaptive, _ = looks(ASAM(0.3, eta=0.0), ones(), data)
    plain, _ = looks(SAM(0.3), ones(), data)
    close(adaptive.gradients, plain.gradients)


class _Layers(nn.Module):
    """`V relu(W e + b)`: as a function, the same when (W, b) grow by what V shrinks by."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.words = nn.Embedding(WORDS, 4).requires_grad_(False)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2, bias=False)
        self.double()
        with torch.no_grad():
            self.first.weight.mul_(factor)
            self.first.bias.mul_(factor)
            self.second.weight.div_(factor)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Answer:
        real = attention_mask.unsqueeze(-1)
        mean = (self.words(input_ids) * real).sum(1) / real.sum(1)
        return Answer(self.second(self.first(mean).relu()))


def _rescaled(update: Update, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Losses at both looks, and what the first layer's gradient is worth in its own units."""
    run, _ = looks(update, classify(_Layers(factor)), batches(size=6))
    first, second = (each.losses for each in run.module.seen)
    return first, second, factor * run.gradients[0]["network.first.weight"]


@pytest.mark.parametrize("factor", [0.1, 3.0, 100.0])
def test_without_eta_rescaling_two_layers_against_each_other_changes_nothing(factor: float):
    here, there = (_rescaled(ASAM(0.5, eta=0.0), each) for each in (1.0, factor))
    close(there, here)
    assert (here[1] - here[0]).abs().max() > 0.01
    here, there = (_rescaled(SAM(0.5), each) for each in (1.0, factor))
    assert (there[1] - here[1]).abs().max() > 0.01  # SAM does notice


@pytest.mark.parametrize("eta", [0.0, 0.01])
def test_weights_of_size_zero_are_in_the_game_through_eta_alone(eta: float):
    bowl = Bowl()
    with torch.no_grad():
        bowl.get_parameter("network.vector").zero_()
    _, places = looks(ASAM(0.5, eta=eta), bowl, batches())
    eps = moved(places)
    assert bool((eps["network.vector"] != 0).all()) == (eta > 0)
    assert (eps["network.matrix"] != 0).all()


def test_a_radius_of_zero_is_a_plain_step():
    data = batches(3)
    plain = fit(FINETUNE(classify(bert(0.3)), sgd()), data)
    still = fit(FINETUNE(classify(bert(0.3)), sgd(update=ASAM(0.0))), data)
    same(still.weights, plain.weights)


@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_where_the_gradient_is_zero_nothing_moves(eta: float):
    bowl = Bowl(tilt=0.0)
    with torch.no_grad():
        for weight in bowl.parameters():
            weight.zero_()
    run, places = looks(ASAM(0.5, eta=eta), bowl, batches())
    same(flat(moved(places)), torch.zeros_like(flat(places[0])))
    same(flat(run.gradients[0]), torch.zeros(6).double())


@pytest.mark.parametrize("key", ["radius", "eta"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_values_out_of_range_are_refused(key: str, value: float):
    with pytest.raises(ValueError, match=rf"^update\.{key}=.*at least 0"):
        partial(ASAM, **{key: value})()
