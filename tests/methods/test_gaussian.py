"""Normal noise: its law, the gradient at the noisy inputs, and what it adds to a squared error."""

from functools import partial
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    MeanPool,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    recording,
    same,
    sgd,
    with_spearman,
)

from lit_adv.methods.gaussian import Gaussian as Method
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.regression import Regression

Gaussian = partial(recording(Method), std=0.3)


@pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])
def test_the_gradient_is_that_at_the_noisy_inputs(build: Any):
    network, (batch,) = build(), batches()
    run = fit(Gaussian(classify(network), sgd(lr=0.0)), [batch])
    (seen,) = run.module.seen
    close(run.gradients[0], derivative(loss(network, batch, seen.delta).mean(), network))
    assert run.logs[0]["train/loss"] == pytest.approx(float(seen.losses.mean()))


def test_noise_is_normal_in_every_coordinate_of_every_real_token():
    (batch,) = batches(size=400, tokens=12)
    (noise,) = fit(Gaussian(classify(MeanPool(width=8)), sgd()), [batch]).module.deltas
    places = batch["attention_mask"].bool()
    assert not noise[~places].any() and (noise[places] != 0).all()

    unit = (noise[places] / 0.3).flatten()
    count = len(unit)
    assert unit.mean() == pytest.approx(0, abs=4 / count**0.5)
    assert unit.square().mean() == pytest.approx(1, abs=4 * (2 / count) ** 0.5)
    ranks = (torch.arange(count) + 0.5) / count  # Kolmogorov and Smirnov, at a level of 1e-5
    below = torch.special.ndtr(unit.sort().values)
    assert (below - ranks).abs().max() < 2.5 / count**0.5


@pytest.mark.parametrize("tokens", [3, 7, 12])
def test_the_noise_of_a_coordinate_does_not_know_the_length(tokens: int):
    (batch,) = batches(size=2000, tokens=12)
    (noise,) = fit(Gaussian(classify(MeanPool(width=8)), sgd()), [batch]).module.deltas
    rows = noise[batch["attention_mask"].sum(1) == tokens][:, :tokens]
    assert rows.square().mean() == pytest.approx(0.09, abs=4 * 0.09 * (2 / rows.numel()) ** 0.5)


@with_spearman
def test_a_linear_regression_pays_half_the_variance_times_the_laplacian():
    """Exactly, for a quadratic loss: the laplacian of (w mean_t(e_t) - y)^2 is 2 w^2 / tokens."""
    network, (batch,) = MeanPool(labels=1), batches(size=4000)
    batch["labels"] = batch["labels"].double()
    run = fit(recording(Method)(Regression(network), sgd(lr=0.0), std=0.3), [batch])
    (w,), tokens = network.head.weight.detach(), batch["attention_mask"].sum(1).double()
    words = network.words(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
    off = words.sum(1) / tokens.unsqueeze(1) @ w + network.head.bias - batch["labels"]

    (seen,) = run.module.seen
    shift = seen.moved.sum(1) / tokens.unsqueeze(1) @ w
    close(seen.losses, (off.square() + 2 * off * shift + shift.square()).detach())
    laplacian = 2 * w.square().sum() / tokens
    share = shift.square() / (0.3**2 / 2 * laplacian)
    assert share.mean() == pytest.approx(1, abs=4 * (2 / 4000) ** 0.5)


# ---- when ----------------------------------------------------------------------------------------


def test_without_noise_it_is_plain_fine_tuning():
    """Also with dropout: the noise is not drawn from dropout's stream."""
    plain = gradient(FINETUNE, bert(dropout=0.3), batches())
    same(gradient(Gaussian, bert(dropout=0.3), batches(), std=0.0), plain)


def test_the_stream_of_dropout_goes_on_as_in_plain_fine_tuning():
    states = []
    for method in (FINETUNE, Gaussian):
        fit(method(classify(bert(dropout=0.3)), sgd()), batches(2))
        states.append(torch.get_rng_state())
    same(*states)


def test_evaluation_is_without_noise():
    network, (batch,) = MeanPool(bend=True), batches()
    run = fit(Gaussian(classify(network), sgd(lr=0.0), std=5.0), [batch], validation=[batch])
    clean = loss(network, batch).mean().item()
    assert run.logs[0]["train/loss"] != pytest.approx(clean, rel=1e-3)
    assert float(run.trainer.callback_metrics["val/loss"]) == pytest.approx(clean)


def test_every_batch_is_passed_once_with_noise_of_its_own():
    run = fit(Gaussian(classify(bert()), sgd(lr=0.0)), batches() * 2)
    one, two = run.module.seen
    assert run.module.cost == (1, 1, 1)
    assert not (one.moved == two.moved)[one.moved != 0].any()


def test_noise_begins_and_grows_when_told():
    (batch,) = batches(size=2000)
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4, "std": 0.4}
    run = fit(Gaussian(classify(MeanPool()), sgd(), **options), [batch] * 6)
    sizes = [0.0 if seen.delta is None else seen.delta[:, :3].std() for seen in run.module.seen]
    assert sizes == pytest.approx([0, 0.1, 0, 0.3, 0, 0.4], rel=0.03)


def test_micro_batches_give_the_mean_of_their_gradients():
    network, data = bert(), batches(3)
    run = fit(Gaussian(classify(bert()), sgd(accumulate_grad_batches=3)), data)
    pairs = zip(data, run.module.deltas, strict=True)
    objective = torch.cat([loss(network, batch, delta) for batch, delta in pairs]).mean()
    close(run.gradients, [derivative(objective, network)])


def test_a_proximal_penalty_is_taken_at_the_clean_input_with_the_same_dropout_masks():
    module = Gaussian(classify(bert(dropout=0.3)), sgd(proximal=MBPP(weight=1.0)), std=0.0)
    noisy, held = fit(module, batches()).module.seen
    assert held.delta is None and held.trains
    same(held.logits, noisy.logits)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="method.std=-1.0"):
        Gaussian(classify(MeanPool()), sgd(), std=-1.0)
