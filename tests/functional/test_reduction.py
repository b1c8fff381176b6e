"""Flooded losses: values by hand, gradients by sign, and levels that change nothing."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lit_adv.functional import reduction

Reduction = Callable[[Tensor, float], Tensor]

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)
closely = partial(torch.testing.assert_close, rtol=1e-14, atol=0)

both = pytest.mark.parametrize("reduce", [reduction.flood, reduction.iflood])


def _losses(examples: int = 9, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(examples)
    return torch.rand(examples, generator=generator, dtype=dtype)


def _gradient(reduce: Reduction, losses: Tensor, level: float) -> Tensor:
    losses = losses.detach().clone().requires_grad_()
    return torch.autograd.grad(reduce(losses, level), losses)[0]


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 2.0])
def test_flood_is_the_distance_of_the_mean_from_the_level_plus_the_level(level: float):
    losses = _losses()
    closely(reduction.flood(losses, level), (losses.mean() - level).abs() + level)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 2.0])
def test_iflood_is_the_mean_distance_of_the_examples_from_the_level_plus_the_level(level: float):
    losses = _losses()
    by_hand = sum(abs(loss - level) + level for loss in losses.tolist()) / len(losses)
    closely(reduction.iflood(losses, level), torch.tensor(by_hand, dtype=torch.float64))


def test_below_the_level_the_gradient_is_negated_and_above_it_is_kept():
    losses = _losses()
    mean = float(losses.mean())
    plain = torch.full_like(losses, 1 / 9)
    closely(_gradient(reduction.flood, losses, mean / 2), plain)
    closely(_gradient(reduction.flood, losses, mean * 2), -plain)


def test_every_example_of_iflood_has_its_own_sign():
    losses = torch.tensor([0.1, 0.6, 0.4, 0.9], dtype=torch.float64)
    signs = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    closely(_gradient(reduction.iflood, losses, 0.5), signs / 4)
    exactly(reduction.slope(losses, 0.5), signs)


@both
@pytest.mark.parametrize("level", [0.0, 0.2, 0.45, 3.0])
def test_gradients_are_those_of_the_values(reduce: Reduction, level: float):
    losses = _losses().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: reduce(values, level), losses)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_level_zero_is_the_plain_mean_to_the_last_bit(reduce: Reduction, dtype: torch.dtype):
    losses = _losses(dtype=dtype)
    losses[3] = 0
    exactly(reduce(losses, 0.0), losses.mean())
    exactly(_gradient(reduce, losses, 0.0), torch.full_like(losses, 1) / 9)
    exactly(reduction.slope(losses, 0.0), torch.ones_like(losses))


@both
def test_a_batch_of_losses_that_are_all_zero_is_left_alone_at_level_zero(reduce: Reduction):
    exactly(_gradient(reduce, torch.zeros(4), 0.0), torch.full((4,), 0.25))


@both
def test_at_exactly_the_level_the_weights_descend(reduce: Reduction):
    losses = torch.full((4,), 0.5)
    exactly(reduction.slope(losses, 0.5), torch.ones(4))
    exactly(reduce(losses, 0.5), torch.tensor(0.5))
    exactly(_gradient(reduce, losses, 0.5), torch.full((4,), 0.25))


@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 1.5])
def test_of_a_single_example_both_floods_are_the_same(level: float):
    losses = _losses(1)
    exactly(reduction.iflood(losses, level), reduction.flood(losses, level))
    exactly(_gradient(reduction.iflood, losses, level), _gradient(reduction.flood, losses, level))


def test_iflood_is_at_least_flood_which_is_at_least_level_and_loss():
    for examples in range(1, 60):
        losses = _losses(examples)
        for level in (0.0, 0.1, 0.5, 0.9, 2.0):
            flooded = reduction.flood(losses, level)
            assert reduction.iflood(losses, level) >= flooded * (1 - 1e-15)
            assert flooded >= max(level, float(losses.mean()))
    apart = torch.tensor([0.0, 1.0])
    assert reduction.iflood(apart, 0.5) == 1.0
    assert reduction.flood(apart, 0.5) == 0.5


@pytest.mark.parametrize("level", [0.0, 1.0, 7.0])
def test_with_all_examples_on_one_side_of_the_level_both_floods_agree(level: float):
    losses = _losses()
    closely(reduction.iflood(losses, level), reduction.flood(losses, level))
    closely(_gradient(reduction.iflood, losses, level), _gradient(reduction.flood, losses, level))


@both
def test_the_order_of_the_examples_does_not_matter(reduce: Reduction):
    losses = _losses()
    closely(reduce(losses.flip(0), 0.4), reduce(losses, 0.4))
    closely(_gradient(reduce, losses.flip(0), 0.4), _gradient(reduce, losses, 0.4).flip(0))


@both
@pytest.mark.parametrize("level", [0.0, 0.3, 5.0])
def test_nan_is_not_swallowed(reduce: Reduction, level: float):
    losses = torch.tensor([0.1, float("nan"), 0.7])
    assert reduce(losses, level).isnan()
    exactly(reduction.slope(losses, level)[1], torch.tensor(1.0))
    exactly(_gradient(reduce, losses, level)[1], torch.tensor(1 / 3))

    weight = torch.tensor(1.0, requires_grad=True)
    reduce(losses * weight, level).backward()
    assert weight.grad is not None
    assert weight.grad.isnan()


@both
def test_infinity_is_not_swallowed(reduce: Reduction):
    losses = torch.tensor([0.1, float("inf"), 0.7])
    assert reduce(losses, 5.0).isposinf()


def test_the_slope_is_the_derivative_of_both_floods():
    losses = _losses()
    for level in (0.2, 0.5, 0.8):
        closely(_gradient(reduction.iflood, losses, level), reduction.slope(losses, level) / 9)
        sign = reduction.slope(losses.mean(), level)
        closely(_gradient(reduction.flood, losses, level), sign.expand(9) / 9)


def test_descending_the_flooded_loss_raises_a_loss_below_the_level():
    for start, rises in ((0.1, True), (0.9, False)):
        weight = torch.tensor([start], requires_grad=True)
        reduction.flood(weight.square(), level=0.25).backward()
        assert weight.grad is not None
        stepped = weight.detach() - 0.1 * weight.grad
        assert (stepped.square() > weight.detach().square()).item() is rises
