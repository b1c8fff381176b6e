"""R3F against its definition in a few lines, and in linear regression against its closed form."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    Floodable,
    MeanPool,
    Tensors,
    answer,
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
    with_spearman,
)
from torch import Tensor, nn

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.r3f import R3F as Method
from lit_adv.tasks.regression import Regression

R3F = partial(recording(Method), weight=2.0, noise="normal", size=0.3)
every_noise = pytest.mark.parametrize("noise", ["normal", "uniform"])


def _reference_divergence(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.softmax(-1), q.softmax(-1)
    return (p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)


def _reference_r3f(network: nn.Module, batch: Tensors, noise: Tensor, weight: float) -> Tensor:
    """Aghajanyan et al. 2021, equation 5; of every example."""
    apart = _reference_divergence(answer(network, batch), answer(network, batch, noise))
    return loss(network, batch) + weight * apart


@every_noise
@pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])
@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_the_gradient_is_the_papers(build: Any, noise: str, weight: float):
    network, (batch,) = build(), batches()
    run = fit(R3F(classify(network), sgd(lr=0.0), noise=noise, weight=weight), [batch])
    (drawn,) = run.module.deltas
    expected = derivative(_reference_r3f(network, batch, drawn, weight).mean(), network)
    close(run.gradients[0], expected)


def test_both_answers_are_trained():
    network, (batch,) = MeanPool(bend=True), batches()
    run = fit(R3F(classify(network), sgd(lr=0.0)), [batch])
    clean, noisy = answer(network, batch), answer(network, batch, run.module.deltas[0])
    for p, q in ((clean, noisy.detach()), (clean.detach(), noisy)):
        one_sided = loss(network, batch) + 2.0 * _reference_divergence(p, q)
        wrong = derivative(one_sided.mean(), network)["network.head.weight"]
        assert not torch.allclose(run.gradients[0]["network.head.weight"], wrong, rtol=1e-2)


@with_spearman
@every_noise
def test_in_linear_regression_the_penalty_has_its_closed_form(noise: str):
    network, (batch,) = MeanPool(labels=1), batches(size=8)
    batch["labels"] = batch["labels"].double()
    module = recording(Method)(Regression(network), sgd(lr=0.0), weight=2.0, noise=noise, size=0.3)
    run = fit(module, [batch])
    shift = run.module.deltas[0].sum(1) / batch["attention_mask"].sum(1, keepdim=True)
    ahead = 2.0 * 2 * (shift @ network.head.weight[0]).unsqueeze(1) * shift  # of 2 (w d)^2
    plain = fit(FINETUNE(Regression(MeanPool(labels=1)), sgd(lr=0.0)), [batch]).gradients[0]
    plain["network.head.weight"] += ahead.mean(0, keepdim=True).detach()
    close(run.gradients[0], plain)


def test_for_little_noise_the_penalty_is_quadratic_in_its_size():
    """The symmetric KL is twice half the Fisher metric: `z J (diag p - p p) J z`."""
    network, (batch,) = MeanPool(), batches(size=8)
    run = fit(R3F(classify(network), sgd(), size=1e-4), [batch])
    assert run.module.seen[0].delta is None
    clean, noisy = (each.logits for each in run.module.seen)
    p, moved = clean.softmax(-1), noisy - clean
    metric = (p * moved.square()).sum(-1) - (p * moved).sum(-1).square()
    expected = _reference_divergence(clean, noisy)
    torch.testing.assert_close(metric, expected, rtol=1e-3, atol=0)


# ---- the noise -----------------------------------------------------------------------------------


@every_noise
def test_noise_has_its_law_in_every_coordinate_of_every_real_token(noise: str):
    (batch,) = batches(size=400, tokens=12)
    module = R3F(classify(MeanPool(width=8)), sgd(), noise=noise, size=0.3)
    (drawn,) = fit(module, [batch]).module.deltas
    places = batch["attention_mask"].bool()
    assert not drawn[~places].any() and (drawn[places] != 0).all()

    unit = (drawn[places] / 0.3).flatten()
    count = len(unit)
    below = torch.special.ndtr(unit) if noise == "normal" else (unit + 1) / 2
    assert below.min() >= 0 and below.max() <= 1
    ranks = (torch.arange(count) + 0.5) / count  # Kolmogorov and Smirnov, at a level of 1e-5
    assert (below.sort().values - ranks).abs().max() < 2.5 / count**0.5
    variance, fourth = (1.0, 3.0) if noise == "normal" else (1 / 3, 1 / 5)
    spread = math.sqrt((fourth - variance**2) / count)
    assert unit.square().mean() == pytest.approx(variance, abs=4 * spread)


def test_neither_noise_nor_penalty_knows_the_labels():
    drawn, penalties = [], []
    for flip in (0, 1):
        (batch,) = batches()
        batch["labels"] = (batch["labels"] + flip) % 2
        run = fit(R3F(classify(bert()), sgd(lr=0.0)), [batch])
        plain = gradient(FINETUNE, bert(), [batch])
        drawn.append(run.module.deltas)
        penalties.append({name: grad - plain[name] for name, grad in run.gradients[0].items()})
    same(*drawn)
    close(*penalties)


# ---- the step ------------------------------------------------------------------------------------


@every_noise
@pytest.mark.parametrize("neutral", [{"size": 0.0}, {"weight": 0.0}])
def test_without_noise_or_weight_it_is_plain_fine_tuning(noise: str, neutral: dict[str, float]):
    """Also with dropout, whose masks both passes share."""
    plain = gradient(FINETUNE, bert(dropout=0.3), batches())
    close(gradient(R3F, bert(dropout=0.3), batches(), noise=noise, **neutral), plain)


def test_with_masks_of_their_own_dropout_alone_sets_the_answers_apart():
    for shared in (True, False):
        module = R3F(classify(bert(dropout=0.3)), sgd(), size=1e-12, same_dropout=shared)
        clean, noisy = fit(module, batches()).module.seen
        assert torch.allclose(clean.logits, noisy.logits, atol=1e-6) == shared


def test_the_weight_scales_the_penalty_alone():
    plain = gradient(FINETUNE, bert(), batches())
    once, thrice = (gradient(R3F, bert(), batches(), weight=weight) for weight in (1.0, 3.0))
    for name, grad in plain.items():
        close(thrice[name] - grad, 3 * (once[name] - grad))


@pytest.mark.parametrize("flood", [Fixed, Individual])
def test_the_penalty_is_not_flooded(flood: type[Fixed | Individual]):
    data = cut(batches()[0], 2, 2)
    network, whole = bert(), batches()[0]
    descent = sgd(lr=0.0, flood=flood(100.0), accumulate_grad_batches=2)
    run = fit(R3F(Floodable(network), descent), data)
    noise = torch.cat(run.module.deltas)
    objective = _reference_r3f(network, whole, noise, 2.0) - 2 * loss(network, whole)
    close(run.gradients[0], derivative(objective.mean(), network))


def test_the_logged_loss_is_the_task_loss_at_the_clean_input():
    run = fit(R3F(classify(bert()), sgd()), batches())
    clean, noisy = (float(each.losses.mean()) for each in run.module.seen)
    log = run.logs[0]
    assert (log["train/loss"], log["loss/clean"]) == pytest.approx((clean, clean))
    assert log["loss/adversarial"] == pytest.approx(noisy)
    assert log["perturbation/norm"] == pytest.approx(float(norms(run.module.deltas[0]).mean()))


@every_noise
def test_noise_begins_and_grows_when_told(noise: str):
    (batch,) = batches(size=2000)
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4, "size": 0.4}
    run = fit(R3F(classify(MeanPool()), sgd(), noise=noise, **options), [batch] * 6)
    assert [each.delta is None for each in run.module.seen] == [True, True, False] * 3
    scale = 1.0 if noise == "normal" else 3**0.5
    sizes = [float(scale * delta[:, :3].std()) for delta in run.module.deltas]
    assert sizes == pytest.approx([0.1, 0.3, 0.4], rel=0.03)


@pytest.mark.parametrize("option, value", [("weight", -1.0), ("size", -1.0), ("noise", "gaussian")])
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float | str):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        R3F(classify(MeanPool()), sgd(), **{option: value})
