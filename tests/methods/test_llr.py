"""LLR against closed forms, finite differences and the paper's objective in a few lines."""

import itertools
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    Answer,
    Floodable,
    MeanPool,
    Recorder,
    Tensors,
    ascent,
    batches,
    bert,
    classify,
    close,
    cut,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    recording,
    same,
    sgd,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.llr import LLR as Method
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch


class Priced(Recorder):
    """Keeps what every example pays."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.prices: list[Tensor] = []

    def descend(self, batch: Batch, losses: Tensor | None = None, **options: Any) -> None:
        if "penalty" in options:
            self.prices.append(options["penalty"].detach())
        super().descend(batch, losses, **options)


LLR = partial(
    recording(Method, Priced),
    weight=4.0,
    slope_weight=3.0,
    steps=2,
    step_size=0.3,
    radius=0.5,
    norm="l2",
)
every_network = pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])


def price(module: Recorder) -> Tensor:
    """What the examples of the only batch paid."""
    assert isinstance(module, Priced)
    (found,) = module.prices
    return found


def _zeros(network: nn.Module, batch: Tensors) -> Tensor:
    width = 16 if hasattr(network, "bert") else 4
    return torch.zeros(*batch["input_ids"].shape, width, dtype=torch.float64)


def _slope(network: nn.Module, batch: Tensors) -> Tensor:
    """`grad_e l(e)` of every example, a constant."""
    return ascent(lambda d: loss(network, batch, d), _zeros(network, batch))


def _gap(network: nn.Module, batch: Tensors, delta: Tensor, slope: Tensor) -> Tensor:
    rise = loss(network, batch, delta) - loss(network, batch)
    return (rise - (delta * slope).sum((1, 2))).abs()


def _objective(
    network: nn.Module, batch: Tensors, delta: Tensor, weight: float, slope_weight: float
) -> Tensor:
    """Qin et al. 2019, equation 8, of every example."""
    origin = _zeros(network, batch).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        clean = loss(network, batch, origin)
    (slope,) = torch.autograd.grad(clean.sum(), origin, create_graph=True)
    linear = (delta * slope).sum((1, 2))
    gap = (loss(network, batch, delta) - clean - linear).abs()
    return clean + weight * gap + slope_weight * linear.abs()


# ---- the objective -------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("weight, slope_weight", [(4.0, 3.0), (2.0, 0.0), (0.0, 1.5)])
def test_the_gradient_is_that_of_the_whole_objective(
    build: Any, weight: float, slope_weight: float
):
    network, (batch,) = build(), batches()
    options = {"weight": weight, "slope_weight": slope_weight}
    run = fit(LLR(classify(network), sgd(lr=0.0), **options), [batch])
    objective = _objective(network, batch, run.module.deltas[-1], **options)
    close(run.gradients[0], derivative(objective.mean(), network))
    close(price(run.module), (objective - loss(network, batch)).detach())


@every_network
def test_the_objective_changes_with_the_weights_as_its_gradient_says(build: Any):
    """A finite difference of values, for which nothing is differentiated twice."""
    network, (batch,) = build(), batches()
    run = fit(LLR(classify(network), sgd(lr=0.0)), [batch])
    delta, named = run.module.deltas[-1], dict(network.named_parameters())
    stream = torch.Generator().manual_seed(0)
    ray = {k: torch.randn(w.shape, generator=stream).to(w.dtype) for k, w in named.items()}

    def value(size: float) -> float:
        moved = build()
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                weight.copy_(named[name] + size * ray[name])
        slope = _slope(moved, batch)
        linear = (delta * slope).sum((1, 2)).abs()
        paid = 4.0 * _gap(moved, batch, delta, slope) + 3.0 * linear
        return float((loss(moved, batch) + paid).detach().mean())

    found = sum(float((run.gradients[0][f"network.{k}"] * ray[k]).sum()) for k in ray)
    assert found == pytest.approx((value(1e-5) - value(-1e-5)) / 2e-5, rel=1e-6)


def test_in_a_linear_model_the_objective_has_its_closed_form():
    network, (batch,) = MeanPool(), batches(size=8)
    run = fit(LLR(classify(network), sgd(lr=0.0)), [batch])

    tokens, sign = batch["attention_mask"].sum(1, keepdim=True), 2 * batch["labels"] - 1
    words = network.words(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
    w, b = network.head.weight[1] - network.head.weight[0], network.head.bias.diff()
    margin = sign * (words.sum(1) / tokens @ w + b)
    shift = sign * (run.module.deltas[-1].sum(1) / tokens @ w)
    linear = -margin.neg().sigmoid() * shift
    gap = (F.softplus(-margin - shift) - F.softplus(-margin) - linear).abs()
    close(price(run.module), (4 * gap + 3 * linear.abs()).detach())
    objective = F.softplus(-margin) + 4 * gap + 3 * linear.abs()
    close(run.gradients[0], derivative(objective.mean(), network))


class Linear(Classification):
    """A loss that is linear in the word vectors, if the network is."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits[:, 1] - logits[:, 0]


@pytest.mark.parametrize("steps", [0, 3])
def test_a_linear_loss_has_no_gap(steps: int):
    (batch,) = batches(size=8)
    options = {"steps": steps, "radius": 5.0, "slope_weight": 0.0}
    run = fit(LLR(Linear(MeanPool(), num_labels=2), sgd(lr=0.0), **options), [batch])
    assert run.module.deltas[-1].any()
    close(price(run.module), torch.zeros(8).double())
    close(
        run.gradients,
        fit(FINETUNE(Linear(MeanPool(), num_labels=2), sgd(lr=0.0)), [batch]).gradients,
    )


class Quadratic(nn.Module):
    """`x A x / 2`, x all words of the text: its gap at d is `|d A d| / 2` wherever x is."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 4, dtype=torch.float64)
        turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.manual_seed(2)).double())[0]
        values = sign * torch.tensor([3.0, 1.5, 1.0] + 9 * [0.2], dtype=torch.float64)
        self.matrix = nn.Parameter(turn @ values.diag() @ turn.T)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor) -> Answer:
        x = self.words(input_ids).flatten(1)
        return Answer((x @ self.matrix * x).sum(1, keepdim=True) / 2)


class Value(Classification):
    """The network answers its loss."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits[:, 0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("steps", [0, 1, 50])
def test_a_quadratic_loss_has_the_gap_of_its_matrix_and_the_search_finds_the_largest(
    sign: float, steps: int
):
    network, (batch,) = Quadratic(sign), batches(size=5, tokens=3)
    options = {"weight": 1.0, "slope_weight": 0.0, "steps": steps}
    run = fit(LLR(Value(network, num_labels=2), sgd(lr=0.0), **options), [batch])
    flat = run.module.deltas[-1].flatten(1)
    gap = ((flat @ network.matrix.detach()) * flat).sum(1).abs() / 2
    close(price(run.module), gap)
    largest = torch.full((5,), 0.5**2 * 3.0 / 2).double()
    if steps == 50:
        torch.testing.assert_close(gap, largest, rtol=1e-6, atol=0)
    else:
        assert (gap < 0.99 * largest).all()


def test_gap_and_slope_bound_the_rise_of_the_loss():
    """Tightly where both have the same sign."""
    network, (batch,) = bert(), batches(size=16)
    run = fit(LLR(classify(network), sgd(lr=0.0), weight=1.0, slope_weight=1.0), [batch])
    delta = run.module.deltas[-1]
    rise = (loss(network, batch, delta) - loss(network, batch)).detach()
    linear = (delta * _slope(network, batch)).sum((1, 2))
    tight = (rise - linear) * linear > 0
    assert tight.any() and not tight.all()
    close(price(run.module)[tight], rise.abs()[tight])
    assert (price(run.module)[~tight] > rise.abs()[~tight]).all()


# ---- the search ----------------------------------------------------------------------------------


def _reference_step(delta: Tensor, grad: Tensor, norm: str) -> Tensor:
    if norm == "l2":
        moved = delta + 0.3 * grad / grad.square().sum().sqrt()
        size = moved.square().sum().sqrt()
        return moved * 0.5 / size if size > 0.5 else moved
    ahead = grad.sign() if norm == "linf" else grad / grad.abs().max()
    return (delta + 0.3 * ahead).clamp(-0.5, 0.5)


@every_network
@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_the_search_climbs_the_gap_from_a_random_start_in_the_ball(build: Any, norm: str):
    network, (batch,) = build(), batches()
    run = fit(LLR(classify(network), sgd(lr=0.0), norm=norm, steps=3), [batch])
    origin, *deltas = run.module.deltas
    assert not origin.any()
    start, slope = deltas[0], _slope(network, batch)
    real = batch["attention_mask"].bool()
    assert (start[real] != 0).all() and not start[~real].any()
    assert (norms(start) if norm == "l2" else start.abs()).max() <= 0.5
    for before, found in itertools.pairwise(deltas):
        grad = ascent(partial(_gap, network, batch, slope=slope), before)
        steps = zip(before, grad * real.unsqueeze(-1), strict=True)
        close(found, torch.stack([_reference_step(d, g, norm) for d, g in steps]))


def _found_ascent(network: nn.Module, batch: Tensors, delta: Tensor) -> Tensor:
    module = Method(classify(network), sgd())
    clean, slope = loss(network, batch).detach(), _slope(network, batch)
    return module.gap_ascent(batch, delta.clone(), clean, slope)


def test_the_gap_is_flat_at_the_clean_input():
    network, (batch,) = MeanPool(bend=True), batches()
    delta = _zeros(network, batch)
    assert not _found_ascent(network, batch, delta).any()
    delta += 1e-3
    assert _found_ascent(network, batch, delta).any()


def test_the_search_follows_the_finite_difference_of_the_gap():
    """The linear term's gradient is part of it."""
    network, (batch,) = MeanPool(bend=True), batches(size=3, tokens=4)
    stream = torch.Generator().manual_seed(0)
    delta = torch.randn(3, 4, 4, generator=stream, dtype=torch.float64)
    slope, found = _slope(network, batch), _found_ascent(network, batch, delta)
    expected = torch.zeros_like(delta)
    for token, coordinate in itertools.product(range(4), range(4)):
        nudge = torch.zeros_like(delta)
        nudge[:, token, coordinate] = 1e-5
        up, down = (_gap(network, batch, delta + n, slope) for n in (nudge, -nudge))
        expected[:, token, coordinate] = (up - down).detach() / 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    loss_alone = ascent(lambda d: loss(network, batch, d), delta)
    assert not torch.allclose(found.abs(), loss_alone.abs(), rtol=0.1)


# ---- the passes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "neutral", [{"weight": 0.0, "slope_weight": 0.0}, {"radius": 0.0}, {"radius": 0.0, "steps": 0}]
)
def test_without_weights_or_radius_it_is_plain_fine_tuning(neutral: dict[str, float]):
    """Also with dropout, whose masks all passes share."""
    plain = gradient(FINETUNE, bert(dropout=0.3), batches())
    close(gradient(LLR, bert(dropout=0.3), batches(), **neutral), plain)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_at_the_clean_input_itself_no_rounding_opens_a_gap(precision: str):
    """Other kernels for attention round otherwise; on a GPU they draw other dropout masks, too."""
    module = LLR(classify(bert(layers=4).float()), sgd(), radius=0.0)
    same(price(fit(module, batches(), precision=precision).module), torch.zeros(4))


def test_all_passes_compute_attention_by_the_same_kernels():
    network, seen = bert(), []
    flags = (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.mem_efficient_sdp_enabled)
    network.register_forward_hook(lambda *_: seen.append([flag() for flag in flags]))
    fit(LLR(classify(network), sgd()), batches())
    assert seen == 4 * seen[:1]


# ---- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [Fixed, Individual])
@pytest.mark.parametrize("sizes", [(4,), (1, 2, 1)])
def test_the_penalty_is_not_flooded(flood: type[Fixed | Individual], sizes: tuple[int, ...]):
    network, (batch,) = bert(), batches()
    descent = sgd(lr=0.0, flood=flood(100.0), accumulate_grad_batches=len(sizes))
    run = fit(LLR(Floodable(network), descent), cut(batch, *sizes))
    delta = torch.cat(run.module.deltas[3::4])
    turned = _objective(network, batch, delta, 4.0, 3.0) - 2 * loss(network, batch)
    close(run.gradients[0], derivative(turned.mean(), network))


def test_it_attacks_when_told_and_harder_step_by_step():
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4, "step_size": 1.0}
    run = fit(LLR(classify(bert()), sgd(), **options), batches(6))
    assert [each.delta is None for each in run.module.seen] == [True, *4 * [False]] * 3
    for delta, radius in zip(run.module.deltas[3::4], (0.125, 0.375, 0.5), strict=True):
        close(norms(delta), torch.full((4,), radius).double())


def test_the_logged_loss_is_the_task_loss_at_the_clean_input():
    run = fit(LLR(classify(bert()), sgd()), batches())
    first, last = run.module.seen[0], run.module.seen[-1]
    clean, log = float(first.losses.mean()), run.logs[0]
    assert (log["train/loss"], log["loss/clean"]) == pytest.approx((clean, clean))
    assert log["loss/adversarial"] == pytest.approx(float(last.losses.mean()))
    assert log["perturbation/norm"] == pytest.approx(float(norms(last.moved).mean()))


@pytest.mark.parametrize(
    "option, value",
    [
        ("weight", -1.0),
        ("slope_weight", -1.0),
        ("steps", -1),
        ("steps", 1.5),
        ("step_size", -1.0),
        ("radius", -1.0),
        ("norm", "l1"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float | str):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        LLR(classify(MeanPool()), sgd(), **{option: value})
