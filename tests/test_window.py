"""The gradient of a window against autograd of the stated formula, in one go, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.window import Window, alone

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)
closely = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-15)
in_float32 = partial(torch.testing.assert_close, rtol=5e-7, atol=0, check_dtype=False)


class Model:
    """`f(x) = v . tanh(W x + b) + c`; example n in pass k stands at `x_n + 0.3 k`."""

    def __init__(self, examples: int, dtype: torch.dtype = torch.float64) -> None:
        stream = torch.Generator().manual_seed(examples)
        shapes = ((4, 3), (4,), (4,), (1,))
        self.weights = [torch.randn(shape, generator=stream).to(dtype) for shape in shapes]
        for weight in self.weights:
            weight.requires_grad_()
        self.x = torch.randn(examples, 3, generator=stream).to(dtype)
        self.y = torch.randn(examples, generator=stream).to(dtype)

    def __call__(self, rows: slice, k: int = 0) -> Tensor:
        W, b, v, c = self.weights
        return torch.tanh((self.x[rows] + 0.3 * k) @ W.T + b) @ v + c

    def losses(self, rows: slice, k: int = 0) -> Tensor:
        return (self(rows, k) - self.y[rows]).square()

    def penalty(self, outputs: Tensor) -> Tensor:
        return 0.7 * (outputs - 0.5).abs().pow(1.5)

    def gradient(self, objective: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(objective, self.weights))

    @property
    def grads(self) -> list[Tensor]:
        assert all(weight.grad is not None for weight in self.weights)
        return [weight.grad for weight in self.weights if weight.grad is not None]


@dataclass
class Brute:
    """The stated formulas, over all examples at once."""

    losses: Tensor  # [passes, examples]
    shares: Tensor  # [passes, 1]

    @property
    def mean(self) -> Tensor:
        return (self.shares * self.losses).mean(1).sum() / self.shares.sum()

    def objective(self, flood: Flood) -> Tensor:
        if isinstance(flood, Fixed):
            return self.shares.sum() * ((self.mean - flood.b).abs() + flood.b)
        if isinstance(flood, Individual):
            flooded = (self.losses - flood.b).abs() + flood.b
            return (self.shares * flooded).mean(1).sum()
        return (self.shares * self.losses).mean(1).sum()

    def below(self, flood: Flood) -> Tensor:
        if isinstance(flood, Fixed):
            return (self.mean < flood.b).double()
        if isinstance(flood, Individual):
            return (self.shares * (self.losses < flood.b)).mean(1).sum() / self.shares.sum()
        return torch.tensor(0.0).double()


def _brute(model: Model, shares: Sequence[float]) -> Brute:
    losses = torch.stack([model.losses(slice(None), k) for k in range(len(shares))])
    return Brute(losses, torch.tensor(shares, dtype=losses.dtype)[:, None])


def _fill(
    model: Model,
    sizes: Sequence[int],
    flood: Flood,
    shares: Sequence[float] = (1.0,),
    penalised: Sequence[bool] = (),
) -> Window:
    """Pass over every micro-batch with every share; the penalty uses the graph of the last pass."""
    window = Window(len(sizes), flood, model.weights)
    start = 0
    for position, size in enumerate(sizes):
        assert not window.full
        rows = slice(start, start + size)
        for k, share in enumerate(shares[:-1]):
            window.accumulate(model.losses(rows, k), share)
        outputs = model(rows, len(shares) - 1)
        losses = (outputs - model.y[rows]).square()
        penalty = model.penalty(outputs) if penalised and penalised[position] else None
        window.conclude(losses, shares[-1], penalty)
        start += size
    assert window.full
    return window


def _level(model: Model, height: str, shares: Sequence[float]) -> float:
    """A flood level by name: below, between or above the losses."""
    brute = _brute(model, shares)
    heights = {
        "zero": 0.0,
        "under the mean": 0.5 * brute.mean.item(),
        "over the mean": 1.5 * brute.mean.item(),
        "over all": 1 + brute.losses.max().item(),
    }
    return heights[height]


CUTS = [(7,), (4, 3), (3, 4), (3, 3, 1), (2, 2, 2, 1), (1, 6), (1,) * 7]
SHARES = [(1.0,), (0.5, 0.5), (1 / 3, 1 / 3, 1 / 3), (1.0, 1.0), (0.5, 0.2, 0.9), (2.5,)]
FLOODS = {
    "none": lambda level: NoFlood(),
    "fixed": Fixed,
    "individual": Individual,
}
KINDS = [
    ("none", "zero"),
    *((name, at) for name in ("fixed", "individual") for at in ("under the mean", "over the mean")),
    ("individual", "over all"),
]

every_cut = pytest.mark.parametrize("sizes", CUTS, ids=str)
every_share = pytest.mark.parametrize("shares", SHARES, ids=lambda shares: f"shares{len(shares)}")
every_kind = pytest.mark.parametrize(("name", "height"), KINDS)


@every_kind
@every_share
@every_cut
@pytest.mark.parametrize("penalised", [False, True])
def test_the_gradient_is_that_of_the_formula_however_the_batch_is_cut(
    sizes: tuple[int, ...], shares: tuple[float, ...], name: str, height: str, penalised: bool
):
    model = Model(sum(sizes))
    flood = FLOODS[name](_level(model, height, shares))
    brute = _brute(model, shares)
    objective = brute.objective(flood)
    if penalised:
        objective = objective + model.penalty(model(slice(None), len(shares) - 1)).mean()
    expected = model.gradient(objective)

    window = _fill(model, sizes, flood, shares, [penalised] * len(sizes))
    closely(model.grads, expected)
    closely(window.loss, brute.mean.detach())
    in_float32(window.flooded, brute.below(flood))


@pytest.mark.parametrize("sizes", [(6,), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5)], ids=str)
def test_below_the_level_the_task_gradient_is_negated_and_the_penaltys_is_not(
    sizes: tuple[int, ...], shares: tuple[float, ...]
):
    model = Model(6)
    task = model.gradient(_brute(model, shares).mean)
    penalty = model.gradient(model.penalty(model(slice(None), len(shares) - 1)).mean())

    window = _fill(model, sizes, Fixed(100.0), shares, [True] * len(sizes))
    closely(model.grads, [p - t for t, p in zip(task, penalty, strict=True)])
    exactly(window.flooded, torch.tensor(1.0))


@every_kind
@pytest.mark.parametrize(
    "penalised",
    [(True, False, False), (False, True, False), (False, False, True), (True, True, False)],
    ids=str,
)
def test_penalties_of_some_micro_batches_only_count_by_their_examples(
    name: str, height: str, penalised: tuple[bool, ...]
):
    model, sizes, shares = Model(7), (3, 3, 1), (0.5, 0.5)
    flood = FLOODS[name](_level(model, height, shares))
    rows = torch.tensor(penalised).repeat_interleave(torch.tensor(sizes))
    penalty = (model.penalty(model(slice(None), 1)) * rows).mean()
    expected = model.gradient(_brute(model, shares).objective(flood) + penalty)

    _fill(model, sizes, flood, shares, penalised)
    closely(model.grads, expected)


def test_the_flood_of_a_batch_is_not_the_mean_of_its_parts_floods():
    """Losses 0.1 and 0.9 with level 0.4: the mean, 0.5, is above it though one part is below."""
    slopes = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    for flood, gradient in ((Fixed, 0.5), (Individual, 0.5 * (0.9 - 0.1))):
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        window = Window(2, flood(0.4), [weight])
        for slope in slopes:
            window.conclude(weight * slope)
        assert weight.grad is not None
        closely(weight.grad.item(), gradient)


def test_the_slope_is_decided_by_the_whole_window_not_by_its_last_part():
    """Three windows of the same examples in another order have the same gradient."""
    slopes = torch.tensor([0.1, 0.9, 0.2, 0.8], dtype=torch.float64)
    for order in ((0, 1, 2, 3), (1, 3, 0, 2), (0, 2, 1, 3)):
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        window = Window(2, Fixed(0.6), [weight])
        for part in slopes[list(order)].split(2):
            window.conclude(weight * part)
        assert weight.grad is not None
        closely(weight.grad.item(), -0.5)
        closely(window.loss.item(), 0.5)


@pytest.mark.parametrize("sizes", [(7,), (3, 3, 1), (1, 6)], ids=str)
@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.2, 0.9)], ids=str)
@pytest.mark.parametrize("name", ["fixed", "individual"])
@pytest.mark.parametrize("penalised", [False, True])
def test_level_zero_is_no_flooding(
    sizes: tuple[int, ...], shares: tuple[float, ...], name: str, penalised: bool
):
    # The sums of task and penalty are added up apart before they meet, so the last bit may differ.
    apart = penalised and name == "fixed" and len(sizes) > 1
    plain, flooded = (Model(7, torch.float64 if apart else torch.float32) for _ in range(2))
    _fill(plain, sizes, NoFlood(), shares, [penalised] * len(sizes))
    window = _fill(flooded, sizes, FLOODS[name](0.0), shares, [penalised] * len(sizes))
    (closely if apart else exactly)(flooded.grads, plain.grads)
    exactly(window.flooded, torch.tensor(0.0))


def test_a_window_of_one_batch_and_pass_is_the_plain_mean_to_the_last_bit():
    model = Model(7, torch.float32)
    expected = model.gradient(model.losses(slice(None)).mean())
    window = _fill(model, (7,), NoFlood())
    exactly(model.grads, expected)
    torch.testing.assert_close(window.loss, model.losses(slice(None)).mean().detach())


def test_at_exactly_the_level_the_weights_descend():
    for flood in (Fixed(0.5), Individual(0.5)):
        weight = torch.ones(1, requires_grad=True)
        window = Window(2, flood, [weight])
        window.conclude(weight * torch.tensor([0.5]))
        window.conclude(weight * torch.tensor([0.5]))
        exactly(weight.grad, torch.tensor([0.5]))
        exactly(window.flooded, torch.tensor(0.0))


@pytest.mark.parametrize("name", ["fixed", "individual"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_loss_that_is_no_number_shows(name: str, place: int):
    weight = torch.ones(1, requires_grad=True)
    window = Window(3, FLOODS[name](0.5), [weight])
    for position in range(3):
        factor = float("nan") if position == place else 0.1
        window.conclude(weight * torch.tensor([factor]))
    assert weight.grad is not None
    assert weight.grad.isnan().all()
    assert window.loss.isnan()


@every_kind
def test_weights_that_only_some_passes_use_and_those_that_none_uses(name: str, height: str):
    """A weight of the task alone, one of the penalty alone, and one that lies idle."""
    model = Model(6)
    flood = FLOODS[name](_level(model, height, (1.0,)))
    alone, idle = torch.tensor([0.3]).double().requires_grad_(), torch.ones(2, requires_grad=True)

    def penalty(rows: slice) -> Tensor:
        return (model.x[rows, 0] * alone).square()

    objective = _brute(model, (1.0,)).objective(flood) + penalty(slice(None)).mean()
    expected = torch.autograd.grad(objective, [*model.weights, alone])

    window = Window(3, flood, [idle, *model.weights, alone])
    for start in (0, 2, 4):
        rows = slice(start, start + 2)
        window.conclude(model.losses(rows), penalty=penalty(rows))
    closely((*model.grads, alone.grad), expected)
    assert idle.grad is None


@pytest.mark.parametrize("sizes", [(6,), (3, 3), (4, 2)], ids=str)
def test_the_loss_and_the_flooded_share_are_those_so_far(sizes: tuple[int, ...]):
    model = Model(6)
    level = model.losses(slice(None)).median().item()
    window = Window(len(sizes), Individual(level), model.weights)
    seen = 0
    for size in sizes:
        rows = slice(seen, seen + size)
        window.conclude(model.losses(rows))
        seen += size
        so_far = model.losses(slice(0, seen)).detach()
        closely(window.loss, so_far.mean())
        in_float32(window.flooded, (so_far < level).double().mean())
        assert window.full is (seen == 6)


def test_the_flooded_share_of_the_whole_batch_is_known_at_its_end():
    model = Model(4)
    window = Window(2, Fixed(100.0), model.weights)
    window.conclude(model.losses(slice(0, 2)))
    exactly(window.flooded, torch.tensor(0.0).double())
    window.conclude(model.losses(slice(2, 4)))
    exactly(window.flooded.double(), torch.tensor(1.0).double())


def test_the_loss_is_not_flooded_and_carries_no_graph():
    model = Model(4)
    for flood in (NoFlood(), Fixed(100.0), Individual(100.0)):
        window = _fill(model, (2, 2), flood)
        closely(window.loss, model.losses(slice(None)).mean().detach())
        assert not window.loss.requires_grad
        assert not window.flooded.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_climb_by_exactly_the_gradient_they_would_descend(
    dtype: torch.dtype,
):
    gradients = []
    for flood in (NoFlood(), Fixed(100.0)):
        model = Model(6, dtype)
        window = Window(2, flood, model.weights)
        for rows in (slice(0, 3), slice(3, 6)):
            window.conclude((model(rows).float() - model.y[rows].float()).square())
        assert all(grad.dtype == dtype for grad in model.grads)
        gradients.append(model.grads)
    descended, climbed = gradients
    exactly(climbed, [-grad for grad in descended])


def test_the_gradient_of_the_input_comes_free_with_a_pass():
    model = Model(4)
    model.x.requires_grad_()
    (expected,) = torch.autograd.grad(model.losses(slice(None)).mean(), model.x)
    window = Window(1, Fixed(100.0), model.weights)
    window.accumulate(model.losses(slice(None)), share=0.5)
    assert model.x.grad is not None
    closely(model.x.grad, 0.5 * expected)


def test_every_gradient_goes_through_the_given_backward():
    """A backward that scales, as for half precision, scales everything alike."""

    def scaled(number: Tensor | None, *, last: bool = False, retain_graph: bool = False) -> None:
        if number is not None:
            (1024 * number).backward(retain_graph=retain_graph)

    for flood in (NoFlood(), Fixed(100.0), Individual(1.0)):
        gradients = []
        for backward in (alone, scaled):
            model = Model(5)
            window = Window(2, flood, model.weights, backward)
            for rows in (slice(0, 3), slice(3, 5)):
                window.accumulate(model.losses(rows), 0.5)
                outputs = model(rows, 1)
                losses = (outputs - model.y[rows]).square()
                window.conclude(losses, 0.5, model.penalty(outputs))
            gradients.append(model.grads)
        plain, large = gradients
        exactly(large, [1024 * grad for grad in plain])


@pytest.mark.parametrize("flood", [Fixed, Individual])
@pytest.mark.parametrize("level", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_levels_that_are_no_levels_are_refused(flood: type[Fixed | Individual], level: Any):
    with pytest.raises(ValueError, match=r"^flood\.b="):
        flood(level)
