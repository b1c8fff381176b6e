"""FGM against its closed form, and against its definition in a few lines."""

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
    of_size,
    same,
    scaled,
    sgd,
)
from torch import Tensor, nn

from lit_adv.flood.individual import Individual

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


# ---- the form that shifts the table --------------------------------------------------------------

TABLE = partial(FGM, at="table")


def _losses_at(network: nn.Module, table: Tensor, batch: Tensors) -> Tensor:
    """Loss of every example with another table in place of the network's own."""
    name = next(name for name, weight in network.named_parameters() if weight.shape == table.shape)
    call = {key: batch[key] for key in ("input_ids", "attention_mask")}
    logits = torch.func.functional_call(network, {name: table}, kwargs=call).logits
    return F.cross_entropy(logits, batch["labels"], reduction="none")


def _reference_table_fgm(
    network: nn.Module, batch: Tensors, radius: float, weight: float
) -> tuple[Tensor, Tensor, Tensors]:
    """Shift of the table, the losses there, and the gradient: the recipe as it is copied."""
    words = next(module for module in network.modules() if isinstance(module, nn.Embedding))
    (grad,) = torch.autograd.grad(_losses_at(network, words.weight, batch).mean(), words.weight)
    shift = radius * grad / grad.norm()
    losses = _losses_at(network, words.weight + shift, batch)
    objective = loss(network, batch).mean() + weight * losses.mean()
    return shift, losses.detach(), derivative(objective, network)


def _with_repeats() -> Tensors:
    """Words that come again, within an example and in others, some with another label."""
    (batch,) = batches(size=5)
    batch["input_ids"][:, 1:3] = torch.tensor([[6, 7], [7, 6], [6, 6], [8, 7], [7, 9]])
    batch["labels"] = torch.tensor([0, 1, 1, 0, 0])
    return batch


def _without_repeats(size: int = 1) -> Tensors:
    (batch,) = batches(size=size, tokens=5)
    batch["input_ids"] = torch.arange(5, 5 + 5 * size).view(size, 5) * batch["attention_mask"]
    return batch


@pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_shifting_the_table_is_what_the_copied_recipe_does_to_one_batch(build: Any, weight: float):
    batch = _with_repeats()
    run = fit(TABLE(classify(build()), sgd(lr=0.0), radius=0.7, weight=weight), [batch])
    shift, losses, expected = _reference_table_fgm(build(), batch, 0.7, weight)
    real = batch["attention_mask"].unsqueeze(-1)
    close(run.module.deltas[-1], shift[batch["input_ids"]] * real)
    close(run.module.seen[-1].losses, losses)
    close(run.gradients[0], expected)


def test_all_occurrences_of_a_word_share_one_shift_and_the_table_moves_by_the_radius():
    batch = _with_repeats()
    delta = fit(TABLE(classify(bert()), sgd(), radius=0.7), [batch]).module.deltas[-1]
    real, square = batch["attention_mask"].bool(), 0.0
    for word in batch["input_ids"][real].unique():
        (shift,) = delta[real & (batch["input_ids"] == word)].unique(dim=0)
        square += float(shift.square().sum())
    assert square**0.5 == pytest.approx(0.7, rel=1e-12)


def test_examples_share_the_radius():
    """Without common words, the squares of their lengths add up."""
    batch = _without_repeats(size=4)
    delta = fit(TABLE(classify(bert()), sgd(), radius=0.7), [batch]).module.deltas[-1]
    assert norms(delta).max() < 0.7
    assert norms(delta).square().sum().sqrt() == pytest.approx(0.7, rel=1e-12)


def test_for_one_example_of_different_words_both_forms_are_the_same():
    batch = _without_repeats()
    words, table = (fit(fgm(classify(bert()), sgd()), [batch]) for fgm in (FGM, TABLE))
    close(table.module.deltas, words.module.deltas)
    close(table.gradients, words.gradients)


@pytest.mark.parametrize("batch", [_with_repeats(), _without_repeats(size=4)])
def test_for_several_examples_they_are_not(batch: Tensors):
    words, table = (fit(fgm(classify(bert()), sgd()), [batch]) for fgm in (FGM, TABLE))
    assert not torch.allclose(table.module.deltas[-1], words.module.deltas[-1], rtol=0.1)


def test_after_the_step_the_table_is_as_before_to_the_last_bit():
    network = bert()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(TABLE(classify(network), sgd(lr=0.0), radius=3.0), batches(2))
    same(dict(network.state_dict()), before)


def test_the_table_moves_along_the_gradient_of_the_micro_batch_at_hand():
    data = [_with_repeats(), *batches(1, size=5, seed=1)]
    run = fit(TABLE(classify(bert()), sgd(accumulate_grad_batches=2), radius=0.5), data)
    shifts = [_reference_table_fgm(bert(), batch, 0.5, 1.0)[0] for batch in data]
    for delta, shift, batch in zip(run.module.deltas[1::2], shifts, data, strict=True):
        close(delta, shift[batch["input_ids"]] * batch["attention_mask"].unsqueeze(-1))


def test_an_example_below_its_flood_still_counts_uphill_for_the_table():
    batch = _with_repeats()
    flooded = fit(TABLE(Floodable(bert()), sgd(flood=Individual(0.7))), [batch])
    below = flooded.module.seen[0].losses < 0.7
    assert below.any() and not below.all()
    dry = fit(TABLE(classify(bert()), sgd()), [batch])
    close(flooded.module.deltas, dry.module.deltas)


def test_padding_and_kept_special_tokens_neither_move_nor_count():
    """Though in this network both have a gradient, and their words stand elsewhere as well."""
    batch = _with_repeats()
    batch["input_ids"][:, 0], batch["input_ids"][:, 3] = 6, 7
    task = classify(MeanPool(leak=True, bend=True), special_tokens="keep")
    delta = fit(TABLE(task, sgd(), radius=0.7), [batch]).module.deltas[-1]
    free = batch["attention_mask"].bool() & ~batch["special_tokens_mask"].bool()
    assert not delta[~free].any() and (delta[free] != 0).any(-1).all()
    words = batch["input_ids"][free].unique()
    rows = torch.stack([delta[free][batch["input_ids"][free] == word][0] for word in words])
    assert float(rows.norm()) == pytest.approx(0.7, rel=1e-12)


def test_the_shift_of_the_table_warms_up():
    batch = _without_repeats()
    run = fit(TABLE(classify(MeanPool()), sgd(), radius=0.8, warmup_steps=2), [batch] * 3)
    sizes = [float(norms(delta)) for delta in run.module.deltas[1::2]]
    assert sizes == pytest.approx([0.4, 0.8, 0.8])


def test_without_a_gradient_the_table_does_not_move():
    network = MeanPool()
    nn.init.zeros_(network.head.weight)
    run = fit(TABLE(classify(network), sgd(), radius=0.5), batches())
    assert not run.module.deltas[-1].any()
    for grad in run.gradients[0].values():
        assert grad.isfinite().all()


def test_another_place_is_refused():
    with pytest.raises(ValueError, match="method.at=matrix"):
        FGM(classify(MeanPool()), sgd(), at="matrix")
