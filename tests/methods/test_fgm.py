"""FGM against its closed form, and against its definition in a few lines."""

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    PERTURBING,
    MeanPool,
    Tensors,
    ascent,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    of_size,
    scaled,
    sgd,
)
from torch import Tensor, nn

FGM = PERTURBING["fgm"]


def _reference_fgm(
    network: nn.Module, batch: Tensors, radius: float, weight: float
) -> tuple[Tensor, Tensors]:
    """Perturbation and gradient, from Miyato et al. 2017, equations 5 and 6."""
    grad = ascent(lambda d: loss(network, batch, d), torch.zeros(4, 7, 16, dtype=torch.float64))
    delta = torch.stack([radius * g / (g * g).sum().sqrt() for g in grad])
    clean = derivative(loss(network, batch).mean(), network)
    adversarial = derivative(loss(network, batch, delta).mean(), network)
    return delta, {name: clean[name] + weight * adversarial[name] for name in clean}


@pytest.mark.parametrize("radius", [0.05, 1.0])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0])
def test_perturbation_and_gradient_are_the_papers(radius: float, weight: float):
    network, (batch,) = bert(), batches()
    delta, expected = _reference_fgm(network, batch, radius, weight)
    run = fit(FGM(classify(network), sgd(lr=0.0), radius=radius, weight=weight), [batch])
    close(run.module.deltas[-1], delta)
    close(run.gradients[0], expected)


@pytest.mark.parametrize("radius", [0.1, 3.0])
def test_the_adversarial_loss_of_a_linear_model_has_its_closed_form(radius: float):
    network, (batch,) = MeanPool(), batches(size=8)
    run = fit(FGM(classify(network), sgd(lr=0.0), radius=radius), [batch])

    lengths = batch["attention_mask"].sum(1).double()
    words = network.words(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
    w, b = network.head.weight[1] - network.head.weight[0], network.head.bias.diff()
    margin = (2 * batch["labels"] - 1) * (words.sum(1) / lengths.unsqueeze(1) @ w + b)
    clean, adversarial = run.module.seen
    close(clean.losses, F.softplus(-margin))
    close(adversarial.losses, F.softplus(-margin + radius * w.norm() / lengths.sqrt()))


def test_in_a_linear_model_every_token_gets_the_same_share_of_the_radius():
    (batch,) = batches(size=8)
    run = fit(FGM(classify(MeanPool()), sgd(), radius=0.5), [batch])
    real = batch["attention_mask"].double()
    expected = real * 0.5 / real.sum(1, keepdim=True).sqrt()
    close(run.module.deltas[-1].norm(dim=-1), expected)


def test_every_example_is_perturbed_by_the_radius():
    run = fit(FGM(classify(bert()), sgd(), radius=0.5), batches(3))
    for delta in run.module.deltas[1::2]:
        of_size(delta, 0.5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_without_a_radius_the_gradient_is_a_multiple_of_the_plain_one(weight: float):
    plain = gradient(FINETUNE, bert(), batches())
    close(gradient(FGM, bert(), batches(), radius=0.0, weight=weight), scaled(plain, 1 + weight))


def test_the_direction_is_that_of_the_micro_batch_at_hand():
    """The copied recipe takes it from `.grad`, where earlier micro-batches have left theirs."""
    data = batches(3)
    network = bert()
    run = fit(FGM(classify(network), sgd(accumulate_grad_batches=3), radius=0.5), data)
    expected = [_reference_fgm(bert(), batch, 0.5, 1.0) for batch in data]
    close(run.module.deltas[1::2], [delta for delta, _ in expected])
    mean = {name: sum(grads[name] for _, grads in expected) / 3 for name in expected[0][1]}
    close(run.gradients[0], mean)


def test_the_logged_loss_is_the_mean_over_clean_and_adversarial_by_their_weight():
    run = fit(FGM(classify(bert()), sgd(), radius=0.5, weight=3.0), batches())
    clean, adversarial = (each.losses.mean() for each in run.module.seen)
    assert run.logs[0]["train/loss"] == pytest.approx(float(clean + 3 * adversarial) / 4)
    assert run.logs[0]["perturbation/norm"] == pytest.approx(0.5)
