"""FGSM against its closed form, and against its definition in a few lines."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    PERTURBING,
    Floodable,
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
    norms,
    recording,
    same,
    scaled,
    sgd,
)
from torch import Tensor, nn

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.methods.fgsm import FGSM as Method
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch

FGSM = partial(recording(Method), radius=0.05, clean=1.0, adversarial=1.0)


def _reference_fgsm(
    network: nn.Module, batch: Tensors, radius: float, clean: float, adversarial: float
) -> tuple[Tensor, Tensors]:
    """Goodfellow et al. 2015, section 4 and the objective of section 6, on word vectors."""
    width = 16 if hasattr(network, "bert") else 4
    shape = (*batch["input_ids"].shape, width)
    grad = ascent(lambda d: loss(network, batch, d), torch.zeros(shape, dtype=torch.float64))
    delta = radius * grad.sign() * batch["attention_mask"].unsqueeze(-1)
    objective = clean * loss(network, batch) + adversarial * loss(network, batch, delta)
    return delta, derivative(objective.mean(), network)


@pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])
@pytest.mark.parametrize("clean, adversarial", [(1.0, 1.0), (0.5, 0.5), (0.0, 1.0), (2.0, 0.25)])
def test_perturbation_and_gradient_are_the_papers(build: Any, clean: float, adversarial: float):
    (batch,) = batches()
    options = {"radius": 0.05, "clean": clean, "adversarial": adversarial}
    run = fit(FGSM(classify(build()), sgd(lr=0.0), **options), [batch])
    delta, expected = _reference_fgsm(build(), batch, **options)
    same(run.module.deltas[-1], delta)
    close(run.gradients[0], expected)


@pytest.mark.parametrize("radius", [0.1, 3.0])
def test_the_adversarial_loss_of_a_linear_model_has_its_closed_form(radius: float):
    network, (batch,) = MeanPool(), batches(size=8)
    run = fit(FGSM(classify(network), sgd(lr=0.0), radius=radius), [batch])

    real = batch["attention_mask"].unsqueeze(-1)
    mean = (network.words(batch["input_ids"]) * real).sum(1) / real.sum(1)
    w, b = network.head.weight[1] - network.head.weight[0], network.head.bias.diff()
    margin = (2 * batch["labels"] - 1) * (mean @ w + b)
    clean, adversarial = run.module.seen
    close(clean.losses, F.softplus(-margin))
    close(adversarial.losses, F.softplus(-margin + radius * w.abs().sum()))


@pytest.mark.parametrize("longer", [1.0, 4.0])
def test_it_is_one_sign_step_of_pgd_at_least_as_long_as_the_radius(longer: float):
    options = {"steps": 1, "step_size": 0.2 * longer, "init_size": 0.0, "norm": "linf"}
    pgd = gradient(PERTURBING["pgd_a"], bert(), batches(), radius=0.2, **options)
    same(gradient(FGSM, bert(), batches(), radius=0.2), pgd)
    pgd = gradient(PERTURBING["pgd_b"], bert(), batches(), radius=0.2, **options)
    same(gradient(FGSM, bert(), batches(), radius=0.2, clean=0.0), pgd)


def test_every_coordinate_of_a_real_token_moves_by_the_radius():
    (batch,) = batches(size=8)
    run = fit(FGSM(classify(bert()), sgd(), radius=0.05), [batch])
    real = batch["attention_mask"].double()
    expected = 0.05 * real.unsqueeze(-1).expand(-1, -1, 16)
    same(run.module.deltas[-1].abs(), expected)
    close(norms(run.module.deltas[-1]), 0.05 * (16 * real.sum(1)).sqrt())


def test_a_coordinate_without_a_gradient_stays():
    network = MeanPool()
    with torch.no_grad():
        network.head.weight[:, 1] = 0  # another constant would leave rounding, which has a sign
    (batch,) = batches()
    delta = fit(FGSM(classify(network), sgd()), [batch]).module.deltas[-1]
    real = batch["attention_mask"].bool()
    assert not delta[..., 1].any()
    assert (delta[real][:, [0, 2, 3]] != 0).all()


class Linear(Classification):
    """A loss that is linear in the word vectors, if the network is."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits[:, 1] - logits[:, 0]


def test_of_a_linear_loss_it_finds_the_largest_value_in_the_box():
    network, (batch,) = MeanPool(), batches(size=8)
    run = fit(FGSM(Linear(network, num_labels=2), sgd(lr=0.0), radius=0.3), [batch])
    w = network.head.weight[1] - network.head.weight[0]
    clean, adversarial = run.module.seen
    close(adversarial.losses - clean.losses, (0.3 * w.abs().sum()).expand(8))

    real = batch["attention_mask"].unsqueeze(-1)
    noise = torch.rand(200, 8, 7, 4, generator=torch.manual_seed(0), dtype=torch.float64) - 0.5
    for delta in torch.cat([0.6 * noise, 0.3 * noise.sign()]) * real:
        moved = (delta.sum(1) / real.sum(1)) @ w
        assert (moved <= adversarial.losses - clean.losses + 1e-12).all()


def test_the_other_label_turns_the_perturbation_round():
    deltas = []
    for flip in (0, 1):
        (batch,) = batches(size=8)
        batch["labels"] = (batch["labels"] + flip) % 2
        deltas.append(fit(FGSM(classify(MeanPool()), sgd()), [batch]).module.deltas[-1])
    assert deltas[0].any()
    same(deltas[0], -deltas[1])


# ---- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean, adversarial", [(1.0, 1.0), (0.5, 0.25), (0.0, 2.0)])
def test_without_a_radius_the_gradient_is_a_multiple_of_the_plain_one(
    clean: float, adversarial: float
):
    """Also with dropout: both passes draw the same masks."""
    plain = gradient(FINETUNE, bert(dropout=0.3), batches())
    options = {"radius": 0.0, "clean": clean, "adversarial": adversarial}
    found = gradient(FGSM, bert(dropout=0.3), batches(), **options)
    close(found, scaled(plain, clean + adversarial))


def test_without_the_clean_loss_the_first_pass_trains_nothing():
    run = fit(FGSM(classify(bert()), sgd(), clean=0.0), batches())
    first, second = run.module.seen
    assert not first.trains and second.trains
    assert run.module.cost == (2, 2, 1)
    run = fit(FGSM(classify(bert()), sgd()), batches())
    assert all(each.trains for each in run.module.seen)
    assert run.module.cost == (2, 2, 2)


def test_the_logged_loss_is_the_mean_over_clean_and_adversarial_by_their_weights():
    run = fit(FGSM(classify(bert()), sgd(), clean=0.5, adversarial=1.5), batches())
    clean, adversarial = (each.losses.mean() for each in run.module.seen)
    assert run.logs[0]["train/loss"] == pytest.approx(float(0.5 * clean + 1.5 * adversarial) / 2)
    assert run.logs[0]["loss/clean"] == pytest.approx(float(clean))
    assert run.logs[0]["loss/adversarial"] == pytest.approx(float(adversarial))


@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_the_direction_is_that_of_the_micro_batch_at_hand(clean: float):
    data = batches(3)
    run = fit(FGSM(classify(bert()), sgd(accumulate_grad_batches=3), clean=clean), data)
    expected = [_reference_fgsm(bert(), batch, 0.05, clean, 1.0) for batch in data]
    same(run.module.deltas[1::2], [delta for delta, _ in expected])
    mean = {name: sum(grads[name] for _, grads in expected) / 3 for name in expected[0][1]}
    close(run.gradients[0], mean)


@pytest.mark.parametrize("flood", [Fixed, Individual])
@pytest.mark.parametrize("clean", [0.0, 0.5])
def test_below_the_flood_the_weights_climb_and_so_does_the_perturbation(
    flood: type[Fixed | Individual], clean: float
):
    below: Flood = flood(100.0)
    run = fit(FGSM(Floodable(bert()), sgd(lr=0.0, flood=below), clean=clean), batches())
    dry = fit(FGSM(classify(bert()), sgd(lr=0.0), clean=clean), batches())
    same(run.module.deltas, dry.module.deltas)
    close(run.gradients[0], scaled(dry.gradients[0], -1.0))


def test_it_attacks_when_told_and_harder_step_by_step():
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4, "radius": 0.4}
    run = fit(FGSM(classify(bert()), sgd(), **options), batches(6))
    sizes = [0.0 if each.delta is None else each.delta.abs().max() for each in run.module.seen]
    assert sizes == pytest.approx([0, 0, 0.1, 0, 0, 0.3, 0, 0, 0.4])
    assert [each.delta is None for each in run.module.seen] == [True, False, False] * 3


@pytest.mark.parametrize("option", ["radius", "clean", "adversarial"])
def test_what_has_no_meaning_is_refused_by_name(option: str):
    with pytest.raises(ValueError, match=f"method.{option}=-1.0"):
        FGSM(classify(MeanPool()), sgd(), **{option: -1.0})


def test_an_objective_of_nothing_is_refused():
    with pytest.raises(ValueError, match="method.clean"):
        FGSM(classify(MeanPool()), sgd(), clean=0.0, adversarial=0.0)
