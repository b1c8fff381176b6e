"""SMART against its closed forms, and against the paper's algorithm in a few lines."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    PERTURBING,
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

from lit_adv.methods.smart import SMART as Method
from lit_adv.tasks.regression import Regression

SMART = PERTURBING["smart"]


def _reference_kl(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.softmax(-1), q.softmax(-1)
    return (p * (p / q).log()).sum(-1)


def _reference_smoothness(p: Tensor, q: Tensor) -> Tensor:
    return _reference_kl(p, q) + _reference_kl(q, p)


def _reference_unit(grad: Tensor, norm: str, per: str) -> Tensor:
    if per == "token":  # each token as if it were an example; padding has no direction
        tokens = [_reference_unit(g, norm, "example") if g.any() else g for g in grad]
        return torch.stack(tokens)
    if norm == "linf":
        return grad.sign()
    return grad / (grad.square().sum().sqrt() if norm == "l2" else grad.abs().max())


def _reference_project(delta: Tensor, radius: float, norm: str, per: str) -> Tensor:
    if norm != "l2":
        return delta.clamp(-radius, radius)
    if per == "token":
        return torch.stack([_reference_project(d, radius, norm, "example") for d in delta])
    size = delta.square().sum().sqrt()
    return delta * radius / size if size > radius else delta


def _reference_smart(
    network: nn.Module, batch: Tensors, start: Tensor, norm: str, per: str
) -> tuple[list[Tensor], Tensors]:
    """Jiang et al. 2020, Algorithm 1 without the teacher: lines 6 to 10, then equation 2."""
    clean = answer(network, batch).detach()
    deltas = [start]
    for _ in range(2):
        grad = ascent(lambda d: _reference_smoothness(answer(network, batch, d), clean), deltas[-1])
        moved = [
            _reference_project(d + 0.3 * _reference_unit(g, norm, per), 0.5, norm, per)
            for d, g in zip(deltas[-1], grad, strict=True)
        ]
        deltas.append(torch.stack(moved))
    apart = _reference_smoothness(answer(network, batch, deltas[-1]), answer(network, batch))
    return deltas, derivative((loss(network, batch) + 2.0 * apart).mean(), network)


@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
@pytest.mark.parametrize("per", ["example", "token"])
def test_perturbations_and_gradient_are_the_papers(norm: str, per: str):
    network, (batch,) = bert(), batches()
    run = fit(SMART(classify(network), sgd(lr=0.0), norm=norm, per=per), [batch])
    deltas, expected = _reference_smart(network, batch, run.module.deltas[0], norm, per)
    close(run.module.deltas, deltas)
    close(run.gradients[0], expected)


@pytest.mark.parametrize("norm", ["l2", "soft-inf"])
@pytest.mark.parametrize("per", ["example", "token"])
def test_renormalising_is_the_authors_codes_update(norm: str, per: str):
    """mt-dnn 3228e7c, perturbation.py: `noise <- norm(noise + step_size * grad)`, grad as it is."""
    network, (batch,) = bert(), batches()
    options = {"norm": norm, "per": per, "update": "renormalise", "step_size": 30.0, "radius": 0.7}
    run = fit(SMART(classify(network), sgd(lr=0.0), **options), [batch])
    clean = answer(network, batch).detach()
    delta = run.module.deltas[0]
    for found in run.module.deltas[1:]:
        grad = ascent(lambda d: _reference_smoothness(answer(network, batch, d), clean), delta)
        moved = delta + 30.0 * grad
        delta = torch.stack([0.7 * _reference_unit(d, norm, per) for d in moved])
        close(found, delta)


# ---- the divergence ------------------------------------------------------------------------------


BATCH: Tensors = {}  # answers of classes are compared without it


def _logits() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 5, 3, generator=stream, dtype=torch.float64)
    return p.requires_grad_(), q.requires_grad_()


def _smart(detach_target: bool) -> Method:
    return Method(classify(MeanPool()), sgd(), detach_target=detach_target)


def test_smoothness_is_the_symmetric_kl_with_its_full_gradient():
    p, q = _logits()
    found = _smart(detach_target=False).smoothness(p, q, BATCH)
    close(found, _reference_smoothness(p, q))
    close(
        torch.autograd.grad(found.sum(), [p, q]),
        torch.autograd.grad(_reference_smoothness(p, q).sum(), [p, q]),
    )


def test_detached_each_logit_is_pulled_by_the_difference_of_the_probabilities():
    """mt-dnn 3228e7c, loss.py, SymKlCriterion: the target of either KL has no gradient."""
    p, q = _logits()
    to_p, to_q = torch.autograd.grad(
        _smart(detach_target=True).smoothness(p, q, BATCH).sum(), [p, q]
    )
    apart = (p.softmax(-1) - q.softmax(-1)).detach()
    close(to_p, apart)
    close(to_q, -apart)


def test_detaching_halves_the_gradient_near_agreement():
    p, _ = _logits()
    q = (p + 1e-6 * torch.randn(5, 3, generator=torch.Generator().manual_seed(1))).detach()
    full, half = (
        torch.autograd.grad(_smart(detach).smoothness(p, q.requires_grad_(), BATCH).sum(), [p, q])
        for detach in (False, True)
    )
    for twice, once in zip(full, half, strict=True):
        torch.testing.assert_close(twice, 2 * once, rtol=1e-5, atol=1e-12)


def test_smoothness_is_symmetric_and_positive():
    p, q = _logits()
    smart = _smart(detach_target=False)
    same(smart.smoothness(p, q, BATCH), smart.smoothness(q, p, BATCH))
    assert (smart.smoothness(p, q, BATCH) > 0).all()
    same(smart.smoothness(p, p.clone(), BATCH), torch.zeros(5).double())


def test_for_small_perturbations_smoothness_is_quadratic_and_twice_the_kl():
    network, (batch,) = bert(), batches()
    clean = answer(network, batch)
    direction = torch.randn(4, 7, 16, dtype=torch.float64, generator=torch.manual_seed(0))
    once, twice = (answer(network, batch, size * direction) for size in (1e-4, 2e-4))
    smoothness = _smart(detach_target=False).smoothness
    kl, ones = _reference_kl(clean, once), torch.ones(4)
    ratio = smoothness(once, clean, BATCH) / kl
    torch.testing.assert_close(ratio.float(), 2 * ones, rtol=1e-3, atol=0)
    ratio = smoothness(twice, clean, BATCH) / smoothness(once, clean, BATCH)
    torch.testing.assert_close(ratio.float(), 4 * ones, rtol=1e-2, atol=0)


# ---- the penalty ---------------------------------------------------------------------------------


@pytest.mark.parametrize("detach_target", [False, True])
def test_at_the_clean_input_itself_the_penalty_and_its_gradient_are_nothing(detach_target: bool):
    """Also with dropout, whose masks all passes share: the real path through a BERT."""
    options = {"noise_std": 0.0, "detach_target": detach_target}
    penalised = fit(SMART(classify(bert(dropout=0.3)), sgd(), **options), batches())
    plain = fit(FINETUNE(classify(bert(dropout=0.3)), sgd()), batches())
    assert not any(delta.any() for delta in penalised.module.deltas)
    for each in penalised.module.seen:
        same(each.logits, plain.module.seen[0].logits)
    close(penalised.gradients, plain.gradients)


def test_a_network_that_ignores_its_input_is_not_penalised():
    network = MeanPool()
    nn.init.zeros_(network.head.weight)
    same(gradient(SMART, network, batches()), gradient(FINETUNE, network, batches()))


def test_neither_perturbation_nor_penalty_knows_the_labels():
    perturbed, penalties = [], []
    for flip in (False, True):
        data = batches()
        data[0]["labels"] = (data[0]["labels"] + flip) % 2
        run = fit(SMART(classify(bert()), sgd(lr=0.0)), data)
        plain = gradient(FINETUNE, bert(), data)
        perturbed.append(run.module.deltas)
        penalties.append({name: grad - plain[name] for name, grad in run.gradients[0].items()})
    same(*perturbed)
    close(*penalties)


def test_the_penalty_trains_the_clean_and_the_perturbed_answer():
    network, (batch,) = bert(), batches()
    run = fit(SMART(classify(network), sgd(lr=0.0)), [batch])
    clean, perturbed = answer(network, batch), answer(network, batch, run.module.deltas[-1])
    one_sided = loss(network, batch) + 2 * _reference_smoothness(perturbed, clean.detach())
    expected = derivative(one_sided.mean(), network)
    name = "network.classifier.weight"
    assert not torch.allclose(run.gradients[0][name], expected[name], rtol=1e-3)


def test_the_weight_scales_the_penalty_alone():
    plain = gradient(FINETUNE, bert(), batches())
    once, thrice = (gradient(SMART, bert(), batches(), weight=weight) for weight in (1.0, 3.0))
    for name, grad in plain.items():
        close(thrice[name] - grad, 3 * (once[name] - grad))


def test_the_logged_loss_is_the_task_loss_at_the_clean_input():
    network, (batch,) = bert(), batches()
    run = fit(SMART(classify(network), sgd(lr=0.0)), [batch])
    expected = loss(network, batch).mean().item()
    assert run.logs[0]["train/loss"] == pytest.approx(expected)


# ---- regression ----------------------------------------------------------------------------------


def _regress(network: nn.Module, batch: Tensors, **options: Any) -> Run:
    batch = {**batch, "labels": batch["labels"].double()}
    defaults = {"weight": 2.0, "steps": 1, "noise_std": 1e-9, "step_size": 0.3, "radius": 0.5}
    module = recording(Method)(Regression(network), sgd(lr=0.0), **{**defaults, **options})
    return fit(module, [batch])


@with_spearman
def test_in_linear_regression_the_penalty_has_its_closed_form():
    network, (batch,) = MeanPool(labels=1), batches(size=8)
    run = _regress(network, batch)

    (w,) = network.head.weight
    real = batch["attention_mask"].double().unsqueeze(-1)
    lengths = real.sum((1, 2))
    ahead = real * w / (w.norm() * lengths.sqrt().view(-1, 1, 1))
    found = run.module.deltas[-1]
    torch.testing.assert_close(found.abs(), 0.3 * ahead.abs(), rtol=0, atol=1e-7)
    torch.testing.assert_close(norms(found), torch.full((8,), 0.3).double(), rtol=0, atol=1e-7)

    words = network.words(batch["input_ids"]) * real
    guess = words.sum(1) / lengths.unsqueeze(1) @ w + network.head.bias
    objective = (guess - batch["labels"]).square() + 2.0 * 0.3**2 * w.square().sum() / lengths
    expected = derivative(objective.mean(), network)["network.head.weight"]
    torch.testing.assert_close(run.gradients[0]["network.head.weight"], expected)


@with_spearman
def test_the_penalty_is_a_mean_over_the_batch():
    (batch,) = batches(size=5)
    double = {name: torch.cat([value, value]) for name, value in batch.items()}
    once, twice = (_regress(MeanPool(labels=1), data).gradients[0] for data in (batch, double))
    torch.testing.assert_close(once, twice)


# ---- the search ----------------------------------------------------------------------------------


def test_a_step_much_longer_than_the_noise_ends_along_the_gradient():
    network, (batch,) = bert(), batches()
    options = {"steps": 1, "noise_std": 1e-4, "step_size": 0.4}
    run = fit(SMART(classify(network), sgd(lr=0.0), **options), [batch])
    clean = answer(network, batch).detach()
    grad = ascent(
        lambda d: _reference_smoothness(answer(network, batch, d), clean), run.module.deltas[0]
    )
    cosine = torch.cosine_similarity(run.module.deltas[1].flatten(1), grad.flatten(1))
    assert (cosine > 0.99).all()


def test_close_to_the_start_the_direction_is_that_of_virtual_adversarial_training():
    """Miyato et al. 2018, one power iteration: there the KL is of the clean answer's side only."""
    network, (batch,) = bert(), batches()
    options = {"steps": 1, "noise_std": 1e-5, "step_size": 0.4}
    run = fit(SMART(classify(network), sgd(lr=0.0), **options), [batch])
    start, found = run.module.deltas
    clean = answer(network, batch).detach()
    virtual = ascent(lambda d: _reference_kl(clean, answer(network, batch, d)), start)
    cosine = torch.cosine_similarity(found.flatten(1), virtual.flatten(1))
    assert (cosine > 0.999).all()


@pytest.mark.parametrize("norm, per", [("l2", "example"), ("linf", "token")])
def test_a_step_of_no_length_projects_the_noise(norm: str, per: str):
    options = {"steps": 1, "noise_std": 1.0, "step_size": 0.0, "norm": norm, "per": per}
    start, found = fit(SMART(classify(bert()), sgd(), **options), batches()).module.deltas
    close(found, torch.stack([_reference_project(d, 0.5, norm, per) for d in start]))
    assert (start != found).any()


def test_the_noise_is_normal_with_its_standard_deviation():
    module = SMART(classify(MeanPool(width=64)), sgd(), steps=0, noise_std=0.1, radius=torch.inf)
    (batch,) = batches(size=100, tokens=10)
    (noise,) = fit(module, [batch]).module.deltas
    real = noise[batch["attention_mask"].bool()].flatten()
    count = len(real)
    assert real.mean() == pytest.approx(0, abs=4 * 0.1 / count**0.5)
    assert real.std() == pytest.approx(0.1, rel=4 / (2 * count) ** 0.5)
    kurtosis = (real / 0.1).pow(4).mean()
    assert kurtosis == pytest.approx(3, abs=4 * (96 / count) ** 0.5)


def test_renormalised_every_example_lies_on_the_sphere():
    run = fit(SMART(classify(bert()), sgd(), update="renormalise", radius=0.7), batches())
    for delta in run.module.deltas[1:]:
        of_size(delta, 0.7)


def test_noise_of_the_same_stream_is_drawn_for_every_batch_anew():
    first, _, _, second, _, _ = fit(SMART(classify(bert()), sgd()), batches() * 2).module.deltas
    assert first.any() and second.any() and not torch.equal(first, second)


@pytest.mark.parametrize(
    "option, value",
    [
        ("weight", -1.0),
        ("steps", -1),
        ("steps", 2.5),
        ("noise_std", -0.1),
        ("step_size", -0.1),
        ("radius", -1.0),
        ("update", "clip"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float | str):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        SMART(classify(MeanPool()), sgd(), **{option: value})


def test_the_reference_here_is_what_pytorch_says():
    p, q = _logits()
    expected = F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="none").sum(-1)
    close(_reference_kl(p, q), expected)
