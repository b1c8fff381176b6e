"""Virtual adversarial training against power iterations by hand, and units of word vectors."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    WORDS,
    Floodable,
    MeanPool,
    Run,
    Tensors,
    answer,
    ascent,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    of_size,
    recording,
    same,
    sgd,
    with_spearman,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.smart import SMART
from lit_adv.methods.vat import VAT as Method
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Batch

VAT = recording(Method)
OPTIONS: dict[str, Any] = {"weight": 2.0, "steps": 2, "xi": 0.05, "radius": 0.6}


def _kl(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.softmax(-1), q.softmax(-1)
    return (p * (p / q).log()).sum(-1)


def _towards(network: nn.Module, batch: Batch, delta: Tensor) -> Tensor:
    """`KL(p(e) || p(e + delta))` of every example; p(e) is a constant."""
    return _kl(answer(network, batch).detach(), answer(network, batch, delta))


def _run(network: nn.Module, data: Tensors, **options: Any) -> Run:
    return fit(VAT(classify(network), sgd(lr=0.0), **{**OPTIONS, **options}), [data])


def _unit(grad: Tensor) -> Tensor:
    return grad / norms(grad).view(-1, 1, 1)


# ---- the algorithm -------------------------------------------------------------------------------


def _of_three_classes() -> nn.Module:
    """Of two, all divergences climb in the same direction."""
    return MeanPool(labels=3, bend=True)


@pytest.mark.parametrize("build", [bert, _of_three_classes])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_perturbations_and_gradient_are_the_papers(build: Callable[[], nn.Module], steps: int):
    network, (batch,) = build(), batches()
    run = _run(network, batch, steps=steps)
    *probes, found = run.module.deltas
    assert len(probes) == steps
    for i, probe in enumerate(probes):
        of_size(probe, 0.05)
        ahead = _unit(ascent(lambda d: _towards(network, batch, d), probe))
        close(run.module.deltas[i + 1], (0.6 if i == steps - 1 else 0.05) * ahead)
    of_size(found, 0.6)
    objective = loss(network, batch) + 2.0 * _towards(network, batch, found)
    close(run.gradients[0], derivative(objective.mean(), network))


def test_the_clean_answer_is_not_pulled():
    network, (batch,) = bert(), batches()
    run = _run(network, batch)
    both = _kl(answer(network, batch), answer(network, batch, run.module.deltas[-1]))
    pulled = derivative((loss(network, batch) + 2.0 * both).mean(), network)
    name = "network.classifier.weight"
    assert not torch.allclose(run.gradients[0][name], pulled[name], rtol=1e-3)


@pytest.mark.parametrize("flood", [Fixed(9.0), Individual(0.7), Individual(9.0)])
def test_the_penalty_is_not_flooded(flood: Fixed | Individual):
    network, (batch,) = bert(), batches()
    run = fit(VAT(Floodable(network), sgd(lr=0.0, flood=flood), **OPTIONS), [batch])
    same(run.module.deltas, _run(bert(), batch).module.deltas)
    losses = loss(network, batch)
    below = losses < flood.b if isinstance(flood, Individual) else (losses.mean() < flood.b)
    flooded = torch.where(below, -losses, losses)
    objective = flooded + 2.0 * _towards(network, batch, run.module.deltas[-1])
    close(run.gradients[0], derivative(objective.mean(), network))


def test_with_dropout_all_answers_have_the_same_masks():
    module = VAT(classify(bert(dropout=0.3)), sgd(), **{**OPTIONS, "radius": 0.0, "xi": 1e-300})
    run = fit(module, batches())
    for each in run.module.seen[1:]:
        same(each.logits, run.module.seen[0].logits)
    close(run.gradients[0], gradient(FINETUNE, bert(dropout=0.3), batches()))


def test_a_network_that_ignores_its_input_is_neither_perturbed_nor_penalised():
    network = MeanPool()
    nn.init.zeros_(network.head.weight)
    run = _run(network, batches()[0])
    assert not run.module.deltas[-1].any()
    close(run.gradients[0], gradient(FINETUNE, network, batches()))


def test_neither_perturbation_nor_penalty_knows_the_labels():
    perturbed, penalties = [], []
    for flip in (False, True):
        (data,) = batches()
        data["labels"] = (data["labels"] + flip) % 2
        run = _run(bert(), data)
        plain = gradient(FINETUNE, bert(), [data])
        perturbed.append(run.module.deltas)
        penalties.append({name: grad - plain[name] for name, grad in run.gradients[0].items()})
    same(*perturbed)
    close(*penalties)


def test_two_micro_batches_give_the_mean_of_their_own_gradients():
    apart, joined = (
        fit(VAT(classify(bert()), sgd(lr=0.0, accumulate_grad_batches=n), **OPTIONS), batches(2))
        for n in (1, 2)
    )
    for name, grad in joined.gradients[0].items():
        close(grad, (apart.gradients[0][name] + apart.gradients[1][name]) / 2)


# ---- closed forms --------------------------------------------------------------------------------


def test_one_iteration_finds_the_direction_of_a_binary_linear_network():
    network, (batch,) = MeanPool(), batches(size=8)
    found = _run(network, batch, steps=1, xi=1e-4).module.deltas[-1]
    real = batch["attention_mask"].double().unsqueeze(-1)
    w = network.head.weight[1] - network.head.weight[0]
    expected = 0.6 * real * w / (w.norm() * real.sum((1, 2)).sqrt().view(-1, 1, 1))
    sign = (found * expected).sum((1, 2)).sign().view(-1, 1, 1)
    torch.testing.assert_close(found, sign * expected, rtol=0, atol=1e-10)


def _curvature(network: nn.Module, batch: Tensors) -> Tensor:
    """Second derivative of every example's divergence at the clean input, [batch, n, n]."""
    shape = (*batch["input_ids"].shape, 4)

    def total(flat: Tensor) -> Tensor:
        return _towards(network, batch, flat.view(shape)).sum()

    size = shape[1] * shape[2]
    whole = torch.autograd.functional.hessian(total, torch.zeros(shape[0] * size).double())
    assert isinstance(whole, Tensor)
    blocks = whole.view(shape[0], size, shape[0], size)
    return torch.stack([blocks[b, :, b] for b in range(shape[0])])


def test_power_iterations_climb_to_the_direction_of_largest_curvature():
    network, (batch,) = MeanPool(labels=3, bend=True), batches(size=3, tokens=4)
    curvature = _curvature(network, batch)
    directions = [
        _run(network, batch, steps=steps, xi=1e-5, radius=1.0).module.deltas[-1].flatten(1)
        for steps in (0, 1, 2, 3, 60)
    ]
    heights = [torch.einsum("bi,bij,bj->b", d, curvature, d) for d in directions]
    for lower, higher in zip(heights[:-1], heights[1:], strict=True):
        assert (higher > lower).all()
    top, vectors = torch.linalg.eigh(curvature)
    torch.testing.assert_close(heights[-1], top[:, -1], rtol=1e-6, atol=0)
    cosine = (directions[-1] * vectors[:, :, -1]).sum(1).abs()
    assert (cosine > 1 - 1e-6).all()


def test_near_the_clean_input_the_divergence_is_quadratic_and_its_gradient_linear():
    network, (batch,) = bert(), batches()
    plain = gradient(FINETUNE, network, [batch])["network.classifier.weight"]
    once, twice = (_run(network, batch, radius=size) for size in (1e-4, 2e-4))
    close(twice.module.deltas[-1], 2 * once.module.deltas[-1])
    low, high = (_towards(network, batch, run.module.deltas[-1]) for run in (once, twice))
    torch.testing.assert_close(high / low, torch.full((4,), 4.0).double(), rtol=1e-2, atol=0)
    low, high = (run.gradients[0]["network.classifier.weight"] - plain for run in (once, twice))
    torch.testing.assert_close(high, 2 * low, rtol=1e-2, atol=1e-9)


def test_the_length_of_the_probe_does_not_matter_as_long_as_it_is_short():
    far, near = (_run(bert(), batches()[0], xi=xi).module.deltas[-1] for xi in (1e-3, 1e-5))
    assert (torch.cosine_similarity(far.flatten(1), near.flatten(1)) > 1 - 1e-5).all()


def test_without_iterations_all_directions_are_as_likely():
    (batch,) = batches(size=100, tokens=10)
    (found,) = _run(MeanPool(width=64), batch, steps=0).module.deltas
    real = found[batch["attention_mask"].bool()]
    scaled = real / real.square().mean().sqrt()
    assert scaled.mean().item() == pytest.approx(0, abs=4 / scaled.numel() ** 0.5)
    # Of uniform coordinates it would be 1.8; lengths of texts spread it a little.
    each = (found.pow(4).sum((1, 2)) / found.square().sum((1, 2)).square()).mul(
        64 * batch["attention_mask"].sum(1)
    )
    assert each.mean().item() == pytest.approx(3, abs=0.1)


# ---- texts without labels ------------------------------------------------------------------------


class Unlabelled(Classification):
    """Has no losses to tell where there are no labels."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return super().losses(logits, batch) if "labels" in batch else logits.new_zeros(len(logits))


def _with_unlabelled(size: int, tokens: int = 9, seed: int = 5) -> tuple[Any, Tensors]:
    (batch,), (other,) = batches(seed=seed - 5), batches(size=size, tokens=tokens, seed=seed)
    del other["labels"]
    return {**batch, "unlabelled": other}, other


def _run_with(network: nn.Module, batch: Any, **pieces: Any) -> Run:
    task = Unlabelled(network, num_labels=2)
    return fit(VAT(task, sgd(lr=0.0, **pieces), **OPTIONS), [batch])


@pytest.mark.parametrize("size", [1, 4, 6])
def test_the_divergence_is_the_mean_over_the_texts_without_labels(size: int):
    network, (batch, other) = bert(), _with_unlabelled(size)
    run = _run_with(network, batch)
    probe, _, found = run.module.deltas
    assert found.shape == (size, 9, 16)
    of_size(found, 0.6)
    close(run.module.deltas[1], 0.05 * _unit(ascent(lambda d: _towards(network, other, d), probe)))
    objective = loss(network, batch).mean() + 2.0 * _towards(network, other, found).mean()
    close(run.gradients[0], derivative(objective, network))


@pytest.mark.parametrize("size", [1, 4, 6])
def test_at_the_start_a_proximal_reference_holds_nothing_with_texts_of_another_number(size: int):
    batch, _ = _with_unlabelled(size)
    free, held = (_run_with(bert(), batch, **kw) for kw in ({}, {"proximal": MBPP(weight=3.0)}))
    close(held.gradients[0], free.gradients[0])


def test_texts_without_labels_are_accumulated_as_the_others_are():
    network, parts = bert(), [_with_unlabelled(3), _with_unlabelled(6, seed=6)]
    task = Unlabelled(network, num_labels=2)
    module = VAT(task, sgd(lr=0.0, accumulate_grad_batches=2), **OPTIONS)
    run = fit(module, [batch for batch, _ in parts])
    means = [
        loss(network, batch).mean() + 2.0 * _towards(network, other, delta).mean()
        for (batch, other), delta in zip(parts, run.module.deltas[2::3], strict=True)
    ]
    close(run.gradients[0], derivative(sum(means, torch.zeros(())) / 2, network))


def test_a_pass_over_texts_without_labels_that_trains_nothing_moves_no_statistics():
    network = MeanPool(norm=True)
    _run_with(network, _with_unlabelled(6)[0])
    assert network.norm is not None
    assert network.norm.num_batches_tracked == 2  # the labelled pass, and the perturbed one


def test_texts_without_labels_wait_until_the_method_begins():
    batch, _ = _with_unlabelled(6)
    module = VAT(Unlabelled(bert(), num_labels=2), sgd(), **OPTIONS, start_step=1)
    same(fit(module, [batch]).gradients[0], gradient(FINETUNE, bert(), batches()))


# ---- units of word vectors -----------------------------------------------------------------------


def _units(network: nn.Module, batch: Tensors) -> Tensor:
    table = network.get_parameter("bert.embeddings.word_embeddings.weight").detach()
    assert table.shape == (WORDS, 16)
    words = table[batch["input_ids"]]
    return ((words - words.mean(-1, keepdim=True)).square().sum(-1, keepdim=True) / 15).sqrt()


def _varied() -> nn.Module:
    network = bert()
    table = network.bert.embeddings.word_embeddings.weight
    table.data *= torch.linspace(0.3, 3.0, WORDS, dtype=torch.float64).unsqueeze(1)
    return network


def test_relative_radius_and_probe_are_in_units_of_each_word_vector():
    network, (batch,) = _varied(), batches()
    run = _run(network, batch, relative=True)
    unit = _units(network, batch)
    probe, later, found = run.module.deltas
    of_size(found, 0.6)
    close(later, 0.05 * _unit(ascent(lambda d: _towards(network, batch, unit * d), probe)))
    objective = loss(network, batch) + 2.0 * _towards(network, batch, unit * found)
    close(run.gradients[0], derivative(objective.mean(), network))


@pytest.mark.parametrize("per", ["example", "token"])
def test_relative_smoothness_is_measured_at_perturbations_in_these_units(per: str):
    network, (batch,) = _varied(), batches()
    sizes = {"noise_std": 0.05, "step_size": 0.3, "radius": 0.25, "weight": 2.0, "steps": 1}
    module = recording(SMART)(classify(network), sgd(lr=0.0), per=per, relative=True, **sizes)
    run = fit(module, [batch])
    unit = _units(network, batch)

    def apart(delta: Tensor, clean: Tensor) -> Tensor:
        moved = answer(network, batch, unit * delta)
        return _kl(moved, clean) + _kl(clean, moved)

    start, found = run.module.deltas
    clean = answer(network, batch)
    grad = ascent(lambda d: apart(d, clean.detach()), start)
    axes = (1, 2) if per == "example" else 2
    size = grad.norm(dim=axes, keepdim=True)
    moved = start + 0.3 * grad / torch.where(size > 0, size, 1)
    size = moved.norm(dim=axes, keepdim=True)
    close(found, torch.where(size > 0.25, moved * 0.25 / size, moved))
    objective = loss(network, batch) + 2.0 * apart(found, clean)
    close(run.gradients[0], derivative(objective.mean(), network))


@with_spearman
def test_in_regression_the_divergence_is_the_squared_difference():
    network, (batch,) = MeanPool(labels=1), batches(size=8)
    batch["labels"] = batch["labels"].double()
    run = fit(VAT(Regression(network), sgd(lr=0.0), **OPTIONS), [batch])
    (w,), lengths = network.head.weight, batch["attention_mask"].sum(1)
    ahead = answer(network, batch, run.module.deltas[-1]).squeeze(1)
    behind = answer(network, batch).squeeze(1)
    expected = 0.36 * w.square().sum() / lengths  # (radius ||w|| / sqrt(n))^2
    close((ahead - behind).square(), expected)
    objective = (behind - batch["labels"]).square() + 2.0 * (ahead - behind.detach()).square()
    close(run.gradients[0], derivative(objective.mean(), network))


@pytest.mark.parametrize(
    "option, value",
    [("weight", -1.0), ("steps", 1.5), ("steps", -1), ("xi", 0.0), ("xi", -1.0), ("radius", -0.1)],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        VAT(classify(MeanPool()), sgd(), **{option: value})


def test_texts_without_labels_cost_one_forward_pass_more():
    def count(name: str, data: list[Any]) -> int:
        method = FINETUNE if name == "finetune" else partial(VAT, steps=2)
        with FlopCounterMode(display=False) as counter:
            fit(method(classify(bert(layers=2, width=128)), sgd()), data)
        return counter.get_total_flops()

    (labelled,) = batches()
    plain = count("finetune", [labelled])
    both: Any = {**labelled, "unlabelled": labelled}
    # 3 + steps forward, steps to the input only, 2 full.
    assert count("vat", [both]) / plain == pytest.approx((5 + 4 + 2) / 3, rel=0.03)
    assert count("vat", [labelled]) / plain == pytest.approx((4 + 4 + 2) / 3, rel=0.03)
