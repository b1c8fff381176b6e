"""GradientPenalty: the norm of the weights' gradient, by difference and by double backward."""

import math
from typing import Any

import pytest
import torch
from places import Bowl, flat, looks
from testbed import (
    FINETUNE,
    Floodable,
    MeanPool,
    Tensors,
    batches,
    bert,
    classify,
    close,
    cut,
    derivative,
    fit,
    same,
    sgd,
    weights,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

every_kind = pytest.mark.parametrize("of", ["norm", "square"])
both_forms = pytest.mark.parametrize("form", ["difference", "exact"])


def _losses(network: nn.Module, data: list[Tensors]) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        logits = [network(b["input_ids"], b["attention_mask"]).logits for b in data]
    labels = torch.cat([b["labels"] for b in data])
    return nn.functional.cross_entropy(torch.cat(logits), labels, reduction="none")


def _by_hand(
    network: nn.Module, data: list[Tensors], weight: float, of: str, slope: float = 1.0
) -> Tensors:
    """`slope * g + weight * H g / ||g||` (or `H g`), by a Hessian-vector product."""
    named = dict(network.named_parameters())
    losses = _losses(network, data)
    g = torch.autograd.grad(losses.mean(), list(named.values()), create_graph=True)
    v = [grad.detach() for grad in g]
    if of == "norm":
        norm = torch.cat([grad.flatten() for grad in v]).norm()
        v = [grad / norm for grad in v]
    along = torch.stack([(a * b).sum() for a, b in zip(g, v, strict=True)]).sum()
    Hv = torch.autograd.grad(along, list(named.values()))
    return {
        f"network.{name}": slope * grad.detach() + weight * curved
        for name, grad, curved in zip(named, g, Hv, strict=True)
    }


@every_kind
@pytest.mark.parametrize("build", [bert, lambda: MeanPool(bend=True)])
def test_the_exact_gradient_is_the_hessian_times_the_gradient(of: Any, build: Any):
    data = batches(size=6)
    run, _ = looks(GradientPenalty(0.7, of=of, form="exact"), classify(build()), data)
    close(run.gradients[0], _by_hand(build(), data, 0.7, of))
    assert (flat(run.gradients[0]) - flat(_by_hand(build(), data, 0.0, of))).norm() > 0.3


@every_kind
def test_the_exact_gradient_is_that_of_the_penalised_loss_by_finite_differences(of: Any):
    network, data = MeanPool(bend=True), batches()
    named = dict(network.named_parameters())

    def objective() -> float:
        mean = _losses(network, data).mean()
        grads = torch.autograd.grad(mean, list(named.values()))
        norm = torch.cat([grad.flatten() for grad in grads]).norm()
        return (mean + (0.7 * norm if of == "norm" else 0.35 * norm**2)).item()

    run, _ = looks(GradientPenalty(0.7, of=of, form="exact"), classify(MeanPool(bend=True)), data)
    stream = torch.Generator().manual_seed(0)
    for _ in range(5):
        way = {n: torch.randn(w.shape, generator=stream).double() for n, w in named.items()}
        ends = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for name, weight in named.items():
                    weight.add_(way[name], alpha=step)
            ends.append(objective())
        with torch.no_grad():
            for name, weight in named.items():
                weight.add_(way[name], alpha=1e-5)
        along = sum((run.gradients[0][f"network.{name}"] * d).sum() for name, d in way.items())
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(along), rel=1e-6)


@every_kind
@pytest.mark.parametrize("cuts", [(6,), (1, 2, 3)])
def test_the_difference_approaches_the_exact_gradient_in_proportion_to_the_radius(
    of: Any, cuts: tuple[int, ...]
):
    """Of the whole effective batch, however it is cut."""
    data = cut(batches(size=6)[0], *cuts)
    exact = flat(_by_hand(bert(), data, 0.7, of))
    errors = []
    for radius in (1e-2, 1e-3, 1e-4):
        run, _ = looks(GradientPenalty(0.7, radius=radius, of=of), classify(bert()), data)
        errors.append(float((flat(run.gradients[0]) - exact).norm()))
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.05)


@every_kind
@both_forms
@pytest.mark.parametrize("radius", [1e-3, 1.0])
def test_on_a_quadratic_both_forms_are_those_of_the_closed_form(of: Any, form: Any, radius: float):
    bowl, data = Bowl(), batches(size=6)
    g = bowl.slope(data, bowl.x.detach())
    run, _ = looks(GradientPenalty(0.7, radius=radius, of=of, form=form), bowl, data)
    curved = bowl.Q @ g if of == "square" else bowl.Q @ g / g.norm()
    close(flat(run.gradients[0]), g + 0.7 * curved)


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0])
def test_with_a_weight_as_large_as_the_radius_it_is_sam(size: float):
    data = cut(batches(size=6)[0], 2, 4)
    penalty, _ = looks(GradientPenalty(size, radius=size), classify(bert(0.3)), data)
    sam, _ = looks(SAM(size), classify(bert(0.3)), data)
    same(penalty.gradients, sam.gradients)


@every_kind
@both_forms
def test_a_weight_of_zero_is_a_plain_step(of: Any, form: Any):
    def train(**options: Any) -> Any:
        network = MeanPool(bend=True, dropout=0.3)
        return fit(FINETUNE(classify(network), sgd(**options)), batches(3))

    still = train(update=GradientPenalty(0.0, of=of, form=form))
    same(still.gradients, train().gradients)
    same(still.weights, train().weights)


@every_kind
def test_the_exact_form_passes_once_and_draws_dropout_as_plain_training_does(of: Any):
    plain = fit(FINETUNE(classify(MeanPool(dropout=0.3)), sgd(lr=0.0)), batches(3))
    update = GradientPenalty(0.7, of=of, form="exact")
    exact = fit(FINETUNE(classify(MeanPool(dropout=0.3)), sgd(lr=0.0, update=update)), batches(3))
    seen = [[each.losses for each in run.module.seen] for run in (plain, exact)]
    same(seen[1], seen[0])


@every_kind
@both_forms
def test_where_the_gradient_is_zero_the_penalty_is_too(of: Any, form: Any):
    bowl = Bowl(tilt=0.0)
    with torch.no_grad():
        for weight in bowl.parameters():
            weight.zero_()
    run, _ = looks(GradientPenalty(0.7, of=of, form=form), bowl, batches())
    same(flat(run.gradients[0]), torch.zeros(6).double())


@every_kind
@both_forms
@pytest.mark.parametrize("flood", [Fixed(1e3), Individual(1e3)])
def test_below_the_flood_the_loss_is_climbed_and_the_penalty_descended(
    of: Any, form: Any, flood: Fixed | Individual
):
    data = batches(size=6)
    expected = flat(_by_hand(bert(), data, 0.7, of, slope=-1.0))
    update = GradientPenalty(0.7, radius=1e-6, of=of, form=form)
    run, _ = looks(update, Floodable(bert()), data, flood=flood)
    close(flat(run.gradients[0]), expected, rtol=0, atol=1e-9 if form == "exact" else 1e-4)


@every_kind
@both_forms
def test_frozen_weights_stay_and_are_no_part_of_the_norm(of: Any, form: Any):
    def train(frozen: bool) -> tuple[Tensors, Tensors, Tensors]:
        network = MeanPool(bend=True)
        network.words.requires_grad_(not frozen)
        task = classify(network)
        start = weights(task)
        update = GradientPenalty(0.7, radius=0.2, of=of, form=form)
        run, places = looks(update, task, batches())
        return start, places[-1], run.gradients[0]

    (start, place, found), (_, _, other) = train(True), train(False)
    same(place["network.words.weight"], start["network.words.weight"])
    assert "network.words.weight" not in found
    assert not torch.allclose(found["network.head.weight"], other["network.head.weight"])
    if form == "difference":
        step = flat({name: place[name] - start[name] for name in start})
        assert float(step.norm()) == pytest.approx(0.2, rel=1e-9)


@every_kind
@both_forms
def test_under_the_penalty_training_ends_where_the_gradient_is_smaller(of: Any, form: Any):
    def norm(weight: float) -> float:
        update = GradientPenalty(weight, radius=1e-3, of=of, form=form)
        network = MeanPool()
        fit(FINETUNE(classify(network), sgd(lr=0.1, update=update)), batches(), epochs=40)
        return float(flat(derivative(_losses(network, batches()).mean(), network)).norm())

    assert norm(1.0 if of == "norm" else 3.0) < 0.9 * norm(0.0)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"weight": -1.0}, r"^update\.weight=-1\.0: .*at least 0"),
        ({"weight": math.nan}, r"^update\.weight=nan: .*at least 0"),
        ({"radius": -1.0}, r"^update\.radius=-1\.0: .*at least 0"),
        ({"radius": 0.0}, r"^update\.radius=0\.0: a finite difference needs a length above 0"),
        ({"of": "cube"}, r"^update\.of=cube: choose one of norm, square"),
        ({"form": "guess"}, r"^update\.form=guess: choose one of difference, exact"),
        ({"form": "exact", "start_step": 2}, r"^update\.form=exact: penalises at every step"),
        ({"form": "exact", "every_n_steps": 2}, r"^update\.form=exact: penalises at every step"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], line: str):
    with pytest.raises(ValueError, match=line):
        GradientPenalty(**options)
