"""Norm balls: directions, projections, starts and steps, against exact arithmetic and geometry."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor

from lit_adv.functional import ball
from lit_adv.functional.ball import Norm, Per

EPS = torch.finfo(torch.float32).eps  # one unit in the last place of 1

every_norm = pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
every_per = pytest.mark.parametrize("per", ["example", "token"])
exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)
to_rounding = partial(torch.testing.assert_close, rtol=4 * EPS, atol=0)


def _reference_size(x: Tensor, norm: Norm, per: Per) -> Tensor:
    x, axes = x.double(), (1, 2) if per == "example" else (2,)
    if norm == "l2":
        return x.square().sum(axes, keepdim=True).sqrt()
    return x.abs().amax(axes, keepdim=True)


def _reference_unit(grad: Tensor, norm: Norm, per: Per) -> Tensor:
    """In float64, whose range holds the squares of every float32."""
    return grad.double().sign() if norm == "linf" else grad / _reference_size(grad, norm, per)


def _normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _mask(*counts: int, tokens: int) -> Tensor:
    return torch.arange(tokens) < torch.tensor(counts)[:, None]


# ---- directions ----------------------------------------------------------------------------------


@every_norm
@every_per
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_unit_is_the_gradient_over_its_size(norm: Norm, per: Per, scale: float):
    grad = _normal(5, 7, 6) * scale
    direction = ball.unit(grad, norm, per)
    assert direction.dtype == torch.float32
    to_rounding(direction.double(), _reference_unit(grad, norm, per))


@every_norm
@every_per
@pytest.mark.parametrize("exponent", [-90, -24, -1, 1, 24, 90])
def test_a_power_of_two_does_not_change_a_bit_of_the_direction(norm: Norm, per: Per, exponent: int):
    grad = _normal(5, 7, 6)
    exactly(ball.unit(grad * 2.0**exponent, norm, per), ball.unit(grad, norm, per))


@every_norm
@every_per
@pytest.mark.parametrize("scale", [1e-30, 1 / 3, 3.7, 1e30])
def test_no_scale_changes_the_direction_unless_the_product_is_rounded(
    norm: Norm, per: Per, scale: float
):
    grad = (_normal(5, 7, 6) * 50).round()
    short = float(torch.tensor(scale, dtype=torch.bfloat16))  # 8 bits times 8 bits: exact
    assert torch.equal((grad * short).double(), grad.double() * short)
    exactly(ball.unit(grad * short, norm, per), ball.unit(grad, norm, per))


@every_norm
@every_per
@pytest.mark.parametrize("scale", [1e-30, 1 / 3, 3.7, 1e30])
def test_any_scale_changes_the_direction_by_one_ulp_of_its_size_at_most(
    norm: Norm, per: Per, scale: float
):
    grad = _normal(5, 7, 6)
    change = ball.unit(grad * scale, norm, per) - ball.unit(grad, norm, per)
    assert change.abs().max() <= EPS


@every_norm
@every_per
def test_a_zero_gradient_has_exactly_no_direction_and_leaves_its_neighbours_theirs(
    norm: Norm, per: Per
):
    grad = _normal(3, 4, 5)
    grad[1] = 0
    grad[2, 3] = 0
    direction = ball.unit(grad, norm, per)
    exactly(direction[1], torch.zeros(4, 5))
    exactly(direction[2, 3], torch.zeros(5))
    exactly(direction[:1], ball.unit(grad[:1], norm, per))

    start = _normal(3, 4, 5, seed=1)
    everywhere = torch.ones(3, 4, dtype=torch.bool)
    exactly(ball.ascend(start, torch.zeros_like(grad), everywhere, 0.5, None, norm, per), start)


@every_norm
@every_per
def test_the_direction_of_an_example_does_not_depend_on_its_batch(norm: Norm, per: Per):
    grad = _normal(4, 6, 5) * torch.tensor([1e-9, 1.0, 1e4, 1e9]).view(4, 1, 1)
    alone = [ball.unit(example[None], norm, per) for example in grad]
    exactly(ball.unit(grad, norm, per), torch.cat(alone))


@every_norm
def test_the_direction_of_a_token_does_not_depend_on_its_text(norm: Norm):
    grad = _normal(4, 6, 5) * torch.logspace(-9, 9, 6).view(1, 6, 1)
    alone = [ball.unit(token[:, None], norm, "token") for token in grad.unbind(1)]
    exactly(ball.unit(grad, norm, "token"), torch.cat(alone, dim=1))


@every_per
def test_the_soft_direction_keeps_the_gradients_shape_with_a_largest_coordinate_of_one(per: Per):
    grad = _normal(3, 4, 5)
    direction = ball.unit(grad, "soft-inf", per)
    exactly(ball.lengths(direction, "linf", per), torch.ones_like(ball.lengths(grad, "l2", per)))
    cosine = F.cosine_similarity(direction.double(), grad.double(), dim=2)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=EPS)


@every_norm
@every_per
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float16, 60000.0),  # the sum of two overflows
        (torch.float16, 1e-7),  # all squares underflow
        (torch.bfloat16, 1e30),  # the squares overflow even in float32
        (torch.bfloat16, 1e-30),
        (torch.float32, 1e38),
        (torch.float32, 1e-37),
    ],
)
def test_half_precision_in_gives_finite_float32_out(
    norm: Norm, per: Per, dtype: torch.dtype, scale: float
):
    signs = torch.tensor([1.0, -1.0]).repeat(30)
    grad = (torch.linspace(0.5, 1, 60) * signs * scale).view(3, 4, 5).to(dtype)
    assert grad.isfinite().all()
    assert grad.all()

    direction = ball.unit(grad, norm, per)
    assert direction.dtype == torch.float32
    to_rounding(direction.double(), _reference_unit(grad, norm, per))

    size = ball.lengths(grad, "linf", per)
    assert size.dtype == torch.float32
    exactly(size.double(), _reference_size(grad, "linf", per))

    step = ball.ascend(torch.zeros(3, 4, 5), grad, _mask(4, 4, 4, tokens=4), 0.25, 1.0, norm, per)
    assert step.dtype == torch.float32
    assert step.isfinite().all()


def test_float64_stays_float64():
    grad = _normal(2, 3, 4, dtype=torch.float64)
    direction = ball.unit(grad)
    torch.testing.assert_close(
        direction, _reference_unit(grad, "l2", "example"), rtol=1e-15, atol=0
    )
    assert ball.project(grad, 0.1).dtype == ball.lengths(grad).dtype == torch.float64


@every_norm
@every_per
def test_the_layout_in_memory_does_not_matter(norm: Norm, per: Per):
    grad = _normal(6, 5, 4).transpose(0, 2)
    assert not grad.is_contiguous()
    to_rounding(ball.unit(grad, norm, per), ball.unit(grad.contiguous(), norm, per))
    to_rounding(ball.lengths(grad, norm, per), ball.lengths(grad.contiguous(), norm, per))


# ---- sizes ---------------------------------------------------------------------------------------


@every_norm
@every_per
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e30])
def test_lengths_are_norms_of_examples_or_tokens(norm: Norm, per: Per, scale: float):
    delta = _normal(3, 4, 5) * scale
    size = ball.lengths(delta, norm, per)
    assert size.shape == ((3, 1, 1) if per == "example" else (3, 4, 1))
    to_rounding(size.double(), _reference_size(delta, norm, per))


# ---- projection ----------------------------------------------------------------------------------


@every_norm
@every_per
def test_inside_the_ball_projection_changes_no_bit(norm: Norm, per: Per):
    delta = _normal(3, 4, 5)
    radius = float(ball.lengths(delta, norm, per).max())
    exactly(ball.project(delta, radius, norm, per), delta)


@every_norm
@every_per
@pytest.mark.parametrize("radius", [1e-30, 1e-5, 0.3, 1.0, 2e30])
def test_outside_the_ball_projection_lands_on_the_sphere(norm: Norm, per: Per, radius: float):
    delta = _normal(3, 40, 50) * 10 * radius
    size = _reference_size(ball.project(delta, radius, norm, per), norm, per)
    assert (_reference_size(delta, norm, per) > radius).all()
    assert size.max() <= radius * (1 + 1e-6)
    assert size.min() >= radius * (1 - 1e-6)


@every_per
def test_the_euclidean_projection_keeps_the_direction(per: Per):
    delta = _normal(3, 4, 5)
    kept = _reference_unit(ball.project(delta, 0.1, "l2", per), "l2", per)
    to_rounding(kept, _reference_unit(delta, "l2", per))


@every_norm
@every_per
def test_no_point_of_the_ball_is_nearer_than_the_projection(norm: Norm, per: Per):
    outside = _normal(200, 3, 4, dtype=torch.float64)
    nearest = ball.project(outside, 0.5, norm, per)

    # A point p of a convex set is nearest to x if no z of the set has (x - p) . (z - p) > 0.
    others = _normal(200, 3, 4, seed=1, dtype=torch.float64)
    others = others / _reference_size(others, norm, per) * 0.5
    assert ((outside - nearest) * (others - nearest)).sum((1, 2)).max() <= 1e-14


@every_norm
@every_per
def test_radius_zero_allows_no_perturbation(norm: Norm, per: Per):
    exactly(ball.project(_normal(3, 4, 5), 0.0, norm, per), torch.zeros(3, 4, 5))
    exactly(ball.project(torch.zeros(3, 4, 5), 0.0, norm, per), torch.zeros(3, 4, 5))


@every_norm
@every_per
@pytest.mark.parametrize("radius", [None, math.inf])
def test_no_radius_is_no_limit(norm: Norm, per: Per, radius: float | None):
    delta = _normal(3, 4, 5) * 1e30
    exactly(ball.project(delta, radius, norm, per), delta)


@every_norm
@every_per
@pytest.mark.parametrize("radius", [1e-5, 0.3, 1.7])
def test_projecting_twice_is_projecting_once(norm: Norm, per: Per, radius: float):
    delta = _normal(30, 14, 15)
    once = ball.project(delta, radius, norm, per)
    twice = ball.project(once, radius, norm, per)
    if norm == "l2":  # the length of what lies on the sphere is rounded
        to_rounding(twice, once)
    else:
        exactly(twice, once)


def test_every_example_is_projected_by_its_own_length():
    delta = torch.tensor([[[0.3, 0.4]], [[30.0, 40.0]]])
    torch.testing.assert_close(
        ball.project(delta, 1.0), torch.tensor([[[0.3, 0.4]], [[0.6, 0.8]]]), rtol=EPS, atol=0
    )


def test_every_token_is_projected_by_its_own_length():
    delta = torch.tensor([[[0.3, 0.4], [30.0, 40.0]]])
    torch.testing.assert_close(
        ball.project(delta, 1.0, "l2", "token"),
        torch.tensor([[[0.3, 0.4], [0.6, 0.8]]]),
        rtol=EPS,
        atol=0,
    )


# ---- steps ---------------------------------------------------------------------------------------


@every_norm
@every_per
@pytest.mark.parametrize("garbage", [1.0, 1e30, math.inf, math.nan])
def test_padding_never_moves_and_never_counts(norm: Norm, per: Per, garbage: float):
    mask = _mask(4, 2, 0, tokens=4)
    real = mask.unsqueeze(-1)
    grad = _normal(3, 4, 5)
    start = torch.where(real, _normal(3, 4, 5, seed=1) * 0.1, 0)

    clean = ball.ascend(start, torch.where(real, grad, 0), mask, 0.3, 0.4, norm, per)
    dirty = ball.ascend(start, torch.where(real, grad, garbage), mask, 0.3, 0.4, norm, per)
    exactly(dirty, clean)
    exactly(dirty[~mask], torch.zeros(6, 5))
    assert (dirty[mask] != start[mask]).all()


@every_norm
@every_per
def test_more_padding_changes_nothing_on_real_tokens(norm: Norm, per: Per):
    mask = _mask(4, 2, tokens=4)
    grad, start = _normal(2, 4, 5), torch.zeros(2, 4, 5)
    short = ball.ascend(start, grad, mask, 0.3, 0.2, norm, per)
    wide = partial(F.pad, pad=(0, 0, 0, 3), value=0.0)
    padded = F.pad(mask, (0, 3))
    long = ball.ascend(wide(start), wide(grad), padded, 0.3, 0.2, norm, per)
    to_rounding(long[:, :4], short)
    exactly(long[:, 4:], torch.zeros(2, 3, 5))


@every_norm
@every_per
def test_a_step_is_the_projection_of_the_step(norm: Norm, per: Per):
    start, grad = _normal(4, 3, 5, dtype=torch.float64), _normal(4, 3, 5, seed=1).double()
    mask = _mask(3, 3, 3, 3, tokens=3)
    moved = start + 0.7 * _reference_unit(grad, norm, per)
    size = _reference_size(moved, norm, per)
    limited = moved * (1.3 / size).clamp(max=1) if norm == "l2" else moved.clamp(-1.3, 1.3)
    for radius, expected in ((None, moved), (math.inf, moved), (1.3, limited)):
        result = ball.ascend(start, grad, mask, 0.7, radius, norm, per)
        torch.testing.assert_close(result, expected, rtol=1e-14, atol=1e-15)


@every_norm
@every_per
def test_steps_of_length_zero_change_no_bit(norm: Norm, per: Per):
    start, grad = _normal(4, 3, 5), _normal(4, 3, 5, seed=1)
    exactly(ball.ascend(start, grad, _mask(3, 3, 3, 3, tokens=3), 0.0, None, norm, per), start)


@every_norm
@every_per
def test_after_many_steps_the_perturbation_is_still_in_the_ball(norm: Norm, per: Per):
    mask = _mask(6, 3, tokens=6)
    delta = torch.zeros(2, 6, 50)
    for seed in range(20):
        grad = _normal(2, 6, 50, seed=seed)
        delta = ball.ascend(delta, grad, mask, 0.4, 0.5, norm, per)
        assert _reference_size(delta, norm, per).max() <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@every_per
def test_no_point_of_the_ball_ascends_a_linear_function_more_than_the_step(norm: Norm, per: Per):
    slope = _normal(1, 3, 4, dtype=torch.float64)
    step = ball.ascend(torch.zeros_like(slope), slope, _mask(3, tokens=3), 0.5, None, norm, per)
    gain = (slope * step).sum()

    others = _normal(5000, 3, 4, seed=1, dtype=torch.float64)
    others = others / _reference_size(others, norm, per) * 0.5
    assert (slope * others).sum((1, 2)).max() < gain

    dual = (slope.abs() if norm == "linf" else _reference_size(slope, "l2", per)).sum()
    torch.testing.assert_close(gain, 0.5 * dual, rtol=1e-14, atol=0)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_adversarial_loss_of_a_linear_classifier_has_its_closed_form(norm: Norm):
    """Mean pooling over L tokens, logit w . mean(e): margins fall by size * ||w||_dual."""
    e, w = _normal(3, 5, 4, dtype=torch.float64), _normal(4, seed=1).double()
    y = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    mask, count = _mask(5, 3, 1, tokens=5), torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)

    def margins(delta: Tensor) -> Tensor:
        pooled = ((e + delta) * mask[..., None]).sum(1) / count[:, None]
        return y * (pooled @ w)

    def losses(delta: Tensor) -> Tensor:
        return F.softplus(-margins(delta))

    start = torch.zeros_like(e).requires_grad_()
    (grad,) = torch.autograd.grad(losses(start).sum(), start)
    delta = ball.ascend(start, grad, mask, 0.2, 0.2, norm)

    drop = 0.2 * (w.norm() / count.sqrt() if norm == "l2" else w.abs().sum())
    expected = F.softplus(drop - margins(torch.zeros_like(e)))
    torch.testing.assert_close(losses(delta), expected, rtol=1e-13, atol=0)


@every_norm
def test_a_step_gives_a_new_leaf_and_leaves_the_old_one_alone(norm: Norm):
    delta = _normal(2, 3, 4).requires_grad_()
    grad = _normal(2, 3, 4, seed=1).requires_grad_()
    before = delta.detach().clone()
    after = ball.ascend(delta, grad, _mask(3, 3, tokens=3), 0.1, 0.2, norm)
    assert after.is_leaf
    assert not after.requires_grad
    exactly(delta.detach(), before)


# ---- starts --------------------------------------------------------------------------------------


def _sample(mask: Tensor, width: int, size: float, norm: Norm, per: Per, seed: int = 0) -> Tensor:
    return ball.sample(mask, width, size, norm, per, torch.Generator().manual_seed(seed))


@every_norm
@every_per
def test_samples_lie_in_the_ball_and_off_the_padding(norm: Norm, per: Per):
    mask = _mask(*range(8), *range(8), tokens=7)
    for seed in range(20):
        delta = _sample(mask, 3, 0.7, norm, per, seed)
        assert delta.dtype == torch.float32
        assert _reference_size(delta, norm, per).max() <= 0.7 * (1 + 1e-6)
        exactly(delta[~mask], torch.zeros(int((~mask).sum()), 3))
        assert delta[mask].count_nonzero() == delta[mask].numel()


@pytest.mark.parametrize("tokens", [4, 9])
@pytest.mark.parametrize("count", [1, 2, 4])
@every_per
def test_the_mean_square_of_a_sample_is_a_third_however_long_the_text(
    tokens: int, count: int, per: Per
):
    examples, width, size = 4000, 5, 0.7
    delta = _sample(_mask(*[count] * examples, tokens=tokens), width, size, "l2", per)
    squares = _reference_size(delta, "l2", per).square() / size**2
    squares = squares[:, 0] if per == "token" else squares.flatten()

    # u uniform on (-1, 1): E u^2 = 1/3, Var u^2 = 4/45; the squared length is a mean of n of them.
    n = width * (1 if per == "token" else count)
    standard_error = math.sqrt(4 / 45 / n / examples)
    assert abs(squares.mean().item() - 1 / 3) < 4 * standard_error


@pytest.mark.parametrize("norm", ["linf", "soft-inf"])
@every_per
def test_samples_of_the_cube_are_uniform_in_every_coordinate(norm: Norm, per: Per):
    delta = _sample(_mask(*[3] * 5000, tokens=5), 4, 0.7, norm, per)[:, :3] / 0.7
    ordered = delta.flatten().sort().values
    n = len(ordered)
    distance = (ordered - torch.linspace(-1, 1, n)).abs().max().item() / 2
    assert distance < 1.63 / math.sqrt(n)  # Kolmogorov and Smirnov's at the 1 % level


@every_norm
@every_per
def test_an_example_of_padding_only_gets_exactly_nothing(norm: Norm, per: Per):
    mask = _mask(0, 3, tokens=3)
    exactly(_sample(mask, 4, 0.7, norm, per)[0], torch.zeros(3, 4))
    exactly(ball.gaussian(mask, 4, 0.7)[0], torch.zeros(3, 4))
    moved = ball.ascend(torch.zeros(2, 3, 4), torch.ones(2, 3, 4), mask, 0.1, 0.2, norm, per)
    exactly(moved[0], torch.zeros(3, 4))
    assert moved.isfinite().all()


@every_norm
@every_per
def test_size_zero_is_no_noise(norm: Norm, per: Per):
    exactly(_sample(_mask(3, 2, tokens=3), 4, 0.0, norm, per), torch.zeros(2, 3, 4))
    exactly(ball.gaussian(_mask(3, 2, tokens=3), 4, 0.0), torch.zeros(2, 3, 4))


def test_gaussian_noise_has_its_standard_deviation_off_the_padding():
    mask = _mask(*[2] * 4000, tokens=5)
    noise = ball.gaussian(mask, 10, 0.3, torch.Generator().manual_seed(0))
    exactly(noise[~mask], torch.zeros(3 * 4000, 10))
    z, n = noise[mask].double() / 0.3, 2 * 4000 * 10
    assert abs(z.mean().item()) < 4 / math.sqrt(n)
    assert abs(z.square().mean().item() - 1) < 4 * math.sqrt(2 / n)
    assert abs(z.pow(4).mean().item() - 3) < 4 * math.sqrt(96 / n)  # Var z^4 = 105 - 9


def test_the_generator_alone_decides_the_noise():
    mask = _mask(3, 2, tokens=3)
    draws = (partial(ball.sample, mask, 4, 0.5), partial(ball.gaussian, mask, 4, 0.5))
    for draw in draws:
        before = torch.get_rng_state()
        first = draw(generator=torch.Generator().manual_seed(1))
        assert torch.equal(torch.get_rng_state(), before)

        torch.rand(7)
        exactly(draw(generator=torch.Generator().manual_seed(1)), first)
        assert not torch.equal(draw(generator=torch.Generator().manual_seed(2)), first)

        stream = torch.Generator().manual_seed(1)
        draw(generator=stream)
        assert not torch.equal(draw(generator=stream), first)


def test_without_a_generator_the_global_seed_decides_the_noise():
    mask = _mask(3, 2, tokens=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = ball.sample(mask, 4, 0.5)
        torch.manual_seed(3)
        exactly(ball.sample(mask, 4, 0.5), first)
        assert not torch.equal(ball.sample(mask, 4, 0.5), first)


# ---- shapes --------------------------------------------------------------------------------------


def test_a_mask_that_does_not_fit_is_refused():
    grad = torch.ones(2, 3, 4)
    for mask in (torch.ones(2, 4), torch.ones(3, 3), torch.ones(1, 3), torch.ones(2, 3, 1)):
        with pytest.raises(TypeCheckError):
            ball.ascend(grad, grad, mask.bool(), 0.1)


def test_integer_masks_are_refused():
    with pytest.raises(TypeCheckError):
        ball.sample(torch.ones(2, 3, dtype=torch.long), 4, 0.1)


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(TypeCheckError):
        ball.ascend(torch.ones(2, 3, 4), torch.ones(2, 3, 5), _mask(3, 3, tokens=3), 0.1)
    with pytest.raises(TypeCheckError):
        ball.unit(torch.ones(2, 3))
