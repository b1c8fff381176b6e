"""Divergences against brute force, PyTorch's own, closed-form gradients and small-step limits."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor

from lit_adv.functional import divergence

Divergence = Callable[[Tensor, Tensor], Tensor]

closely = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)
exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)

both_kls = pytest.mark.parametrize("kl", [divergence.kl, divergence.symmetric_kl])
every_count = pytest.mark.parametrize("classes", [2, 3, 10])


def _logits(classes: int, examples: int = 20, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    p, q = torch.randn(2, examples, classes, generator=generator, dtype=torch.float64) * scale
    return p, q


def _reference_kl(p: Tensor, q: Tensor) -> Tensor:
    """From the probabilities themselves, one example and one class after another."""
    total = torch.zeros(len(p), dtype=torch.float64)
    for b in range(len(p)):
        weights_p, weights_q = p[b].exp(), q[b].exp()
        for c in range(p.shape[1]):
            P, Q = weights_p[c] / weights_p.sum(), weights_q[c] / weights_q.sum()
            total[b] += P * torch.log(P / Q)
    return total


@every_count
def test_kl_is_the_sum_over_probabilities(classes: int):
    p, q = _logits(classes)
    closely(divergence.kl(p, q), _reference_kl(p, q))


@every_count
def test_symmetric_kl_is_the_sum_of_both_directions(classes: int):
    p, q = _logits(classes)
    closely(divergence.symmetric_kl(p, q), _reference_kl(p, q) + _reference_kl(q, p))


@every_count
def test_kl_is_pytorchs_with_the_arguments_in_the_papers_order(classes: int):
    p, q = _logits(classes)
    theirs = F.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True)
    closely(divergence.kl(p, q), theirs.sum(-1))


def test_certain_against_undecided_costs_log_two():
    certain, undecided = torch.tensor([[200.0, 0.0]]), torch.zeros(1, 2)
    closely(divergence.kl(certain, undecided), torch.tensor([2.0]).log())
    closely(divergence.kl(undecided, certain), torch.tensor([100.0]) - torch.tensor([2.0]).log())


@both_kls
@every_count
def test_gradients_are_those_of_the_values(kl: Divergence, classes: int):
    p, q = _logits(classes, examples=4)
    assert torch.autograd.gradcheck(kl, (p.requires_grad_(), q.requires_grad_()))


@every_count
def test_against_a_fixed_target_the_gradient_of_kl_is_q_minus_p(classes: int):
    p, q = _logits(classes)
    q.requires_grad_()
    (grad,) = torch.autograd.grad(divergence.kl(p.detach(), q).sum(), q)
    closely(grad, (q.softmax(-1) - p.softmax(-1)).detach())


@every_count
def test_against_a_fixed_target_the_gradient_of_symmetric_kl_has_its_closed_form(classes: int):
    p, q = _logits(classes)
    q.requires_grad_()
    (grad,) = torch.autograd.grad(divergence.symmetric_kl(p.detach(), q).sum(), q)

    P, Q = p.softmax(-1), q.detach().softmax(-1)
    backward_kl = (Q * (Q / P).log()).sum(-1, keepdim=True)
    closely(grad, (Q - P) + Q * ((Q / P).log() - backward_kl))


@both_kls
def test_constant_shifts_of_the_logits_change_neither_value_nor_gradient(kl: Divergence):
    p, q = _logits(3)
    shift = torch.linspace(-50, 50, len(p), dtype=torch.float64)[:, None]
    torch.testing.assert_close(kl(p + shift, q - shift), kl(p, q), rtol=1e-11, atol=0)

    inputs = p.requires_grad_(), q.requires_grad_()
    for grad in torch.autograd.grad(kl(p, q).sum(), inputs):
        torch.testing.assert_close(grad.sum(-1), torch.zeros(len(p)).double(), rtol=0, atol=1e-13)


@every_count
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_symmetric_kl_is_symmetric_to_the_last_bit(classes: int, dtype: torch.dtype):
    p, q = (logits.to(dtype) for logits in _logits(classes))
    exactly(divergence.symmetric_kl(p, q), divergence.symmetric_kl(q, p))


@every_count
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symmetric_kl_is_never_negative_not_even_by_rounding(classes: int, dtype: torch.dtype):
    p, q = (logits.to(dtype) for logits in _logits(classes, examples=20_000))
    almost = p + q * torch.finfo(dtype).eps
    for other in (q, almost, -p):
        assert divergence.symmetric_kl(p, other).min() >= 0
    assert divergence.symmetric_kl(p, q).min() > 0


@both_kls
def test_saturated_logits_give_finite_values_and_gradients(kl: Divergence):
    saturated = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [-1e4, -1e4, 1e4]])
    p, q = saturated.clone().requires_grad_(), saturated.roll(1, 1).requires_grad_()
    values = kl(p, q)
    assert values.isfinite().all()
    assert values.min() >= 0
    for grad in torch.autograd.grad(values.sum(), (p, q)):
        assert grad.isfinite().all()

    # P = (1, 0, 0) and Q = (0, 1, 0), whose log probabilities are 0 or -10^4 or -2 * 10^4
    exactly(values.detach()[0], torch.tensor(1e4 if kl is divergence.kl else 3e4))


@both_kls
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_equal_predictions_have_exactly_no_divergence(
    kl: Divergence, scale: float, dtype: torch.dtype
):
    p = _logits(5, scale=scale)[0].to(dtype)
    exactly(kl(p, p.clone()), torch.zeros(20, dtype=torch.promote_types(dtype, torch.float32)))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_equal_predictions_have_exactly_no_gradient_of_symmetric_kl(scale: float):
    p = _logits(5, scale=scale)[0].float().requires_grad_()
    q = p.detach().clone().requires_grad_()
    for grad in torch.autograd.grad(divergence.symmetric_kl(p, q).sum(), (p, q)):
        exactly(grad, torch.zeros(20, 5))


@every_count
def test_nearby_symmetric_kl_is_twice_kl_and_grows_with_the_square(classes: int):
    p, step = _logits(classes, scale=1.0)
    near, far = p + 1e-5 * step, p + 2e-5 * step
    symmetric = divergence.symmetric_kl(p, near)

    twice = torch.full((20,), 2.0, dtype=torch.float64)
    torch.testing.assert_close(symmetric / divergence.kl(p, near), twice, rtol=1e-3, atol=0)
    ratio = divergence.symmetric_kl(p, far) / symmetric
    torch.testing.assert_close(ratio, 2 * twice, rtol=1e-3, atol=0)


@every_count
def test_nearby_symmetric_kl_is_the_fisher_form(classes: int):
    p, step = _logits(classes, scale=1.0)
    P = p.softmax(-1)
    variance = (P * step.square()).sum(-1) - (P * step).sum(-1).square()
    nearby = divergence.symmetric_kl(p - 0.5e-4 * step, p + 0.5e-4 * step)
    torch.testing.assert_close(nearby / 1e-8, variance, rtol=1e-6, atol=0)


@both_kls
def test_every_example_is_compared_by_itself(kl: Divergence):
    p, q = _logits(3)
    alone = torch.cat([kl(p[i : i + 1], q[i : i + 1]) for i in range(len(p))])
    exactly(kl(p, q), alone)
    order = torch.arange(len(p)).flip(0)
    exactly(kl(p[order], q[order]), alone[order])


@both_kls
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(kl: Divergence, dtype: torch.dtype):
    p, q = (logits.to(dtype) for logits in _logits(3))
    values = kl(p, q)
    assert values.dtype == torch.float32
    exactly(values, kl(p.float(), q.float()))


def test_squared_is_the_squared_difference_with_its_gradient():
    p, q = _logits(2)
    p, q = p[:, 0].requires_grad_(), q[:, 0].requires_grad_()
    values = divergence.squared(p, q)
    closely(values.detach(), (p - q).detach() ** 2)
    grad_p, grad_q = torch.autograd.grad(values.sum(), (p, q))
    closely(grad_p, 2 * (p - q).detach())
    closely(grad_q, 2 * (q - p).detach())
    assert torch.autograd.gradcheck(divergence.squared, (p, q))


def test_shapes_that_would_broadcast_are_refused():
    column, row = torch.ones(4, 1), torch.ones(4)
    with pytest.raises(TypeCheckError):
        divergence.squared(column, row)
    with pytest.raises(TypeCheckError):
        divergence.squared(row, row[:1])
    for kl in (divergence.kl, divergence.symmetric_kl):
        with pytest.raises(TypeCheckError):
            kl(torch.ones(4, 3), torch.ones(1, 3))
        with pytest.raises(TypeCheckError):
            kl(torch.ones(4, 3), torch.ones(4, 2))
