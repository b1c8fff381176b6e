"""Largest singular values, against LAPACK's."""

import pytest
import torch
from testbed import close, same
from torch import Tensor, nn
from torch.func import jacrev, vmap

from lit_adv.functional.spectral import FEWEST, jacobian, power_iteration


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_matrices(matrices: Tensor, **options: float) -> Tensor:
    return power_iteration(
        lambda v: torch.einsum("boi,bi->bo", matrices, v),
        lambda u: torch.einsum("boi,bo->bi", matrices, u),
        drawn(len(matrices), matrices.shape[2], seed=1),
        **options,  # pyright: ignore[reportArgumentType]
    )


@pytest.mark.parametrize("shape", [(5, 5), (2, 7), (7, 2), (1, 3), (3, 1)])
def test_it_is_the_largest_singular_value_of_each_matrix(shape: tuple[int, int]):
    matrices = drawn(4, *shape)
    torch.testing.assert_close(
        of_matrices(matrices, iterations=300, tolerance=0.0),
        torch.linalg.svdvals(matrices)[:, 0],
        rtol=1e-8,
        atol=0,
    )


def test_it_comes_from_below_and_never_falls():
    matrices = drawn(16, 6, 6)
    truth = torch.linalg.svdvals(matrices)[:, 0]
    ladder = [of_matrices(matrices, iterations=n, tolerance=0.0) for n in range(1, 40)]
    for lower, higher in zip(ladder, [*ladder[1:], truth], strict=True):
        assert (lower <= higher * (1 + 1e-12)).all()
    assert (ladder[0] < 0.99 * truth).any()


def test_at_its_defaults_it_is_right_to_a_hundredth():
    matrices = drawn(64, 20, 30)  # singular values of noise lie close together
    truth = torch.linalg.svdvals(matrices)[:, 0]
    torch.testing.assert_close(of_matrices(matrices), truth, rtol=1e-2, atol=0)


def test_an_unlucky_start_stays_on_a_lower_value_no_longer_than_the_first_iterations():
    scales = torch.tensor([3.0, 1.0], dtype=torch.float64)
    start = torch.tensor([[1e-6, 1.0]], dtype=torch.float64)
    found = power_iteration(lambda v: scales * v, lambda u: scales * u, start)
    torch.testing.assert_close(found, scales[:1], rtol=1e-4, atol=0)
    few = power_iteration(lambda v: scales * v, lambda u: scales * u, start, iterations=3)
    assert few < 1.01 and FEWEST > 3


def test_a_map_to_zero_has_none():
    same(of_matrices(torch.zeros(2, 3, 3, dtype=torch.float64)), torch.zeros(2).double())


# ---- Jacobians -----------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Flatten(), nn.Linear(18, 5), nn.GELU()
    ).double()


def test_it_is_the_largest_singular_value_of_each_jacobian():
    body, x = network(), drawn(3, 3, 4).requires_grad_()
    outputs = body(x)
    found = jacobian(outputs, x, iterations=2000, tolerance=0.0)
    full = vmap(jacrev(lambda row: body(row.unsqueeze(0))[0]))(x.detach())  # [batch, 5, 3, 4]
    truth = torch.linalg.svdvals(full.flatten(2))[:, 0]
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=0)
    close(jacobian(outputs, x, iterations=2000, tolerance=0.0), found)  # the graph is kept


def test_of_the_inputs_themselves_it_is_one():
    x = drawn(3, 4).requires_grad_()
    close(jacobian(x, x), torch.ones(3).double())


def test_no_random_stream_moves_and_no_gradient_is_left():
    body, x = network(), drawn(2, 3, 4).requires_grad_()
    before = torch.get_rng_state()
    jacobian(body(x), x)
    same(torch.get_rng_state(), before)
    assert x.grad is None and all(weight.grad is None for weight in body.parameters())


def test_half_precision_is_measured_in_float32():
    x = drawn(2, 4).bfloat16().requires_grad_()
    found = jacobian(3 * x, x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((2,), 3.0), rtol=1e-2, atol=0)
