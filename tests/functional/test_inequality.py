"""Terms of the inequality, against gradients of weights; and which ways lead through a graph."""

import pytest
import torch
import torch.nn.functional as F
from testbed import close
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from lit_adv.functional import inequality

N, IN, OUT = 3, 4, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
def test_terms_are_those_of_the_gradients_of_each_example(bias: bool):
    x, weight = drawn(N, IN).requires_grad_(), drawn(OUT, IN, seed=1).requires_grad_()
    b = drawn(OUT, seed=2).requires_grad_() if bias else None
    z = F.linear(x, weight, b)
    losses = z.sin().sum(1) + z[:, 0] ** 2
    x_grad, z_grad = torch.autograd.grad(losses.sum(), (x, z), retain_graph=True)
    one = torch.ones(N, dtype=torch.float64)
    found = inequality.terms(x_grad, z_grad, x.detach(), weight.detach(), one, bias=bias)

    for row, loss in enumerate(losses):
        grads = torch.autograd.grad(
            loss, [x, weight, *([b] if b is not None else [])], retain_graph=True
        )
        of_x, *of_weights = [grad.square().sum() for grad in grads]
        close(found.input_norm[row].square(), of_x)
        close(found.weight_norm[row].square(), sum(of_weights))
        rate = (bias + x[row].square().sum()) / torch.linalg.svdvals(weight)[0] ** 2
        close(found.exchange_rate[row], rate.detach())
        close(found.ratio[row], (of_x * rate / sum(of_weights)).detach())
        assert found.ratio[row] < 1
    close(found.slack, -found.ratio.log())


def test_a_jacobian_twice_as_large_gives_a_quarter_of_the_rate():
    args = drawn(N, 2, 3), drawn(N, OUT), drawn(N, IN), drawn(OUT, IN)
    once, twice = (inequality.terms(*args, size * torch.ones(N).double()) for size in (1, 2))
    close(twice.exchange_rate, once.exchange_rate / 4)
    close(twice.ratio, once.ratio / 4)


def test_a_sum_is_one_of_rates_and_of_squared_gradients():
    x = drawn(N)
    parts = [
        inequality.Terms(x.abs(), drawn(N, seed=k).abs(), drawn(N, seed=k + 9).abs())
        for k in (1, 2)
    ]
    squares = sum(part.weight_norm.square() for part in parts)
    rates = sum(part.exchange_rate for part in parts)
    close(inequality.total(parts).ratio, x.square() * rates / squares)
    close(inequality.total(parts[:1]), parts[0])


def test_gradients_too_small_to_be_squared_have_a_ratio():
    size = torch.tensor([1.0, 1e-30])
    terms = inequality.Terms(size, 2 * size, torch.ones(2))
    torch.testing.assert_close(terms.ratio, torch.tensor([0.25, 0.25]))


def test_of_gradients_that_vanish_there_is_no_ratio():
    zero = torch.zeros(1)
    assert inequality.Terms(zero, zero, zero + 1).ratio.isnan()


# ---- ways ----------------------------------------------------------------------------------------


def way(name: str) -> tuple[Node, Node, Node]:
    """Loss, x, and a layer's output in between."""
    x = drawn(2, IN).requires_grad_()
    z = x @ drawn(IN, IN)
    end = {
        "through": z.tanh().sum(),
        "around": (x + z).sum(),
        "around by a product": (x[:, :1] * z).sum(),
        "around, detached": (x.detach() + z).sum(),
        "elsewhere": x.sum(),
        "nowhere": drawn(1).requires_grad_().sum(),
    }[name]
    assert end.grad_fn is not None and z.grad_fn is not None
    return end.grad_fn, get_gradient_edge(x).node, z.grad_fn


@pytest.mark.parametrize(
    "name, at_all, around",
    [
        ("through", True, False),
        ("around", True, True),
        ("around by a product", True, True),
        ("around, detached", True, False),
        ("elsewhere", True, True),
        ("nowhere", False, False),
    ],
)
def test_a_way_around_is_found(name: str, at_all: bool, around: bool):
    loss, x, z = way(name)
    assert inequality.reaches(loss, x) == at_all
    assert inequality.reaches(loss, x, without=z) == around
