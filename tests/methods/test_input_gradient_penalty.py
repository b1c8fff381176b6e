"""The input-gradient penalty against closed forms, finite differences and its definition."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    Floodable,
    MeanPool,
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
    with_spearman,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.input_gradient_penalty import InputGradientPenalty as Method
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.regression import Regression

Penalised = partial(recording(Method), epsilon=2.0)
every_network = pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])


def _zeros(network: nn.Module, batch: Tensors) -> Tensor:
    width = 16 if hasattr(network, "bert") else 4
    return torch.zeros(*batch["input_ids"].shape, width, dtype=torch.float64)


def _objective(network: nn.Module, batch: Tensors, epsilon: float) -> Tensor:
    """Ross and Doshi-Velez 2018, equation 5, on word vectors; of every example."""
    delta = _zeros(network, batch).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        losses = loss(network, batch, delta)
    (grad,) = torch.autograd.grad(losses.sum(), delta, create_graph=True)
    return losses + epsilon / 2 * (grad * grad).sum((1, 2))


@every_network
@pytest.mark.parametrize("epsilon", [0.1, 5.0])
def test_the_gradient_is_that_of_the_whole_objective(build: Any, epsilon: float):
    network, (batch,) = build(), batches()
    run = fit(Penalised(classify(network), sgd(lr=0.0), epsilon=epsilon), [batch])
    expected = derivative(_objective(network, batch, epsilon).mean(), network)
    close(run.gradients[0], expected)


@every_network
def test_the_objective_changes_with_the_weights_as_its_gradient_says(build: Any):
    """A finite difference of values, for which nothing is differentiated twice."""
    network, (batch,) = build(), batches()
    run = fit(Penalised(classify(network), sgd(lr=0.0), epsilon=5.0), [batch])
    named = dict(network.named_parameters())
    stream = torch.Generator().manual_seed(0)
    ray = {k: torch.randn(w.shape, generator=stream).to(w.dtype) for k, w in named.items()}

    def value(size: float) -> float:
        moved = build()
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                weight.copy_(named[name] + size * ray[name])
        grad = ascent(lambda d: loss(moved, batch, d), _zeros(network, batch))
        square = sum(float(coordinate) ** 2 for coordinate in grad.flatten())
        return float(loss(moved, batch).detach().mean()) + 5.0 / 2 * square / 4

    step = 1e-5
    slope = (value(step) - value(-step)) / (2 * step)
    along = sum(float((run.gradients[0][f"network.{k}"] * ray[k]).sum()) for k in ray)
    plain = gradient(FINETUNE, build(), [batch])
    without = sum(float((plain[f"network.{k}"] * ray[k]).sum()) for k in ray)
    assert along == pytest.approx(slope, rel=1e-6)
    assert without != pytest.approx(slope, rel=1e-2)


def test_in_a_linear_model_the_objective_has_its_closed_form():
    network, (batch,) = MeanPool(), batches(size=8)
    run = fit(Penalised(classify(network), sgd(lr=0.0), epsilon=3.0), [batch])

    tokens = batch["attention_mask"].sum(1)
    words = network.words(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
    w, b = network.head.weight[1] - network.head.weight[0], network.head.bias.diff()
    margin = (2 * batch["labels"] - 1) * (words.sum(1) / tokens.unsqueeze(1) @ w + b)
    square = margin.neg().sigmoid().square() * w.square().sum() / tokens
    objective = F.softplus(-margin) + 3.0 / 2 * square
    close(run.gradients[0], derivative(objective.mean(), network))
    lengths = square.sqrt().detach()
    assert run.logs[0]["perturbation/gradient"] == pytest.approx(float(lengths.mean()))


@with_spearman
def test_in_a_linear_regression_the_objective_has_its_closed_form():
    network, (batch,) = MeanPool(labels=1), batches(size=8)
    batch["labels"] = batch["labels"].double()
    run = fit(recording(Method)(Regression(network), sgd(lr=0.0), epsilon=3.0), [batch])
    (w,), tokens = network.head.weight, batch["attention_mask"].sum(1)
    words = network.words(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
    off = words.sum(1) / tokens.unsqueeze(1) @ w + network.head.bias - batch["labels"]
    objective = off.square() * (1 + 3.0 / 2 * 4 * w.square().sum() / tokens)
    close(run.gradients[0], derivative(objective.mean(), network))


@every_network
def test_to_first_order_it_is_an_adversarial_step_that_is_not_normalised(build: Any):
    network, (batch,) = build(), batches()
    grad = ascent(lambda d: loss(network, batch, d), _zeros(network, batch))
    plain = gradient(FINETUNE, build(), [batch])
    whole = gradient(Penalised, build(), [batch], epsilon=1e-5)
    step = derivative(loss(network, batch, 1e-5 * grad).mean(), network)
    for name, ahead in step.items():
        by_step, by_penalty = (ahead - plain[name]) / 1e-5, (whole[name] - plain[name]) / 1e-5
        torch.testing.assert_close(by_step, by_penalty, rtol=1e-3, atol=1e-4)
    words = next(name for name in step if "word" in name)
    assert (whole[words] - plain[words]).abs().max() > 1e-5 * 1e-2


def test_epsilon_scales_the_penalty_alone():
    plain, once, thrice = (
        gradient(Penalised, bert(), batches(), epsilon=each) for each in (0.0, 1.0, 3.0)
    )
    close(plain, gradient(FINETUNE, bert(), batches()))
    for name, grad in plain.items():
        close(thrice[name] - grad, 3 * (once[name] - grad))
    name = "network.classifier.weight"
    assert not torch.allclose(once[name], plain[name], rtol=1e-2)


# ---- examples and tokens -------------------------------------------------------------------------


def test_the_penalty_is_a_mean_over_the_batch():
    """The gradient of the mean loss would make it smaller by the square of the batch's size."""
    (batch,) = batches(size=5)
    double = {name: torch.cat([value, value]) for name, value in batch.items()}
    close(*(gradient(Penalised, bert(), [data]) for data in (batch, double)))


def test_every_example_pays_as_it_would_alone():
    (batch,) = batches()
    whole = gradient(Penalised, bert(), [batch])
    alone = [gradient(Penalised, bert(), [one]) for one in cut(batch, 1, 1, 1, 1)]
    close(whole, {name: sum(grads[name] for grads in alone) / 4 for name in whole})
    close(whole, gradient(Penalised, bert(), cut(batch, 3, 1)))


def test_more_padding_changes_nothing():
    (short,) = batches()
    long = {k: v if k == "labels" else F.pad(v, (0, 3)) for k, v in short.items()}
    close(*(gradient(Penalised, bert(), [data]) for data in (short, long)))


@pytest.mark.parametrize("special_tokens", ["perturb", "keep"])
def test_only_tokens_that_may_be_perturbed_count(special_tokens: str):
    """In a network whose padding has a gradient: of 7 tokens, some are real, some special."""
    network, (batch,) = MeanPool(leak=True), batches(size=8)
    task = classify(network, special_tokens=special_tokens)
    run = fit(Penalised(task, sgd(lr=0.0), epsilon=3.0), [batch])
    free = batch["attention_mask"]
    if special_tokens == "keep":
        free = free * (1 - batch["special_tokens_mask"])
    w = network.head.weight[1] - network.head.weight[0]
    z = network.words(batch["input_ids"]).mean(1) @ w + network.head.bias.diff()
    margin = (2 * batch["labels"] - 1) * z
    square = margin.neg().sigmoid().square() * w.square().sum() * free.sum(1) / 7**2
    objective = F.softplus(-margin) + 3.0 / 2 * square
    close(run.gradients[0], derivative(objective.mean(), network))


def test_where_the_gradient_is_zero_the_penalty_has_none():
    network = MeanPool(bend=True)
    nn.init.zeros_(network.head.weight)
    same(gradient(Penalised, network, batches()), gradient(FINETUNE, network, batches()))


# ---- the step ------------------------------------------------------------------------------------


def test_there_is_one_pass_and_it_draws_dropout_as_plain_fine_tuning_does():
    run = fit(Penalised(classify(bert(dropout=0.3)), sgd()), batches())
    plain = fit(FINETUNE(classify(bert(dropout=0.3)), sgd()), batches())
    (seen,), (expected,) = run.module.seen, plain.module.seen
    close(seen.logits, expected.logits)
    assert not seen.moved.any()
    assert run.logs[0]["train/loss"] == pytest.approx(plain.logs[0]["train/loss"])
    free = gradient(Penalised, bert(dropout=0.3), batches(), epsilon=0.0)
    close(free, plain.gradients[0])


@pytest.mark.parametrize("flood", [Fixed, Individual])
@pytest.mark.parametrize("sizes", [(4,), (1, 2, 1)])
def test_the_penalty_is_not_flooded(flood: type[Fixed | Individual], sizes: tuple[int, ...]):
    network, (batch,) = bert(), batches()
    descent = sgd(lr=0.0, flood=flood(100.0), accumulate_grad_batches=len(sizes))
    run = fit(Penalised(Floodable(network), descent), cut(batch, *sizes))
    turned = _objective(network, batch, 2.0) - 2 * loss(network, batch)
    close(run.gradients[0], derivative(turned.mean(), network))


def test_a_proximal_penalty_takes_no_pass_of_its_own_and_adds_its_gradient():
    data = batches(2)
    pieces = [{}, {"proximal": MBPP(weight=2.0)}]
    free, held = (fit(Penalised(classify(bert()), sgd(**piece)), data) for piece in pieces)
    assert len(held.module.seen) == 2
    close(held.gradients[0], free.gradients[0])
    name = "network.classifier.weight"
    assert not torch.allclose(held.gradients[1][name], free.gradients[1][name])


def test_the_weight_warms_up_and_the_penalty_comes_when_told():
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4, "epsilon": 2.0}
    run = fit(Penalised(classify(bert()), sgd(lr=0.0), **options), batches() * 6)
    for found, epsilon in zip(run.gradients, (0, 0.5, 0, 1.5, 0, 2.0), strict=True):
        close(found, gradient(Penalised, bert(), batches(), epsilon=epsilon))
    assert [seen.delta is None for seen in run.module.seen] == [True, False] * 3


def test_the_gradient_logged_is_its_length_and_the_task_loss_is_not_the_objective():
    network, (batch,) = bert(), batches()
    run = fit(Penalised(classify(network), sgd(lr=0.0)), [batch])
    grad = ascent(lambda d: loss(network, batch, d), _zeros(network, batch))
    expected = float(loss(network, batch).detach().mean())
    assert run.logs[0]["perturbation/gradient"] == pytest.approx(float(norms(grad).mean()))
    assert run.logs[0]["train/loss"] == pytest.approx(expected)
    assert run.logs[0]["loss/clean"] == pytest.approx(expected)


def test_it_costs_twice_a_plain_step():
    """One forward pass, three backward to the input, two to the weights."""

    def operations(method: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            fit(method(classify(MeanPool(bend=True)), sgd()), batches())
        return counter.get_total_flops()

    assert Penalised(classify(MeanPool()), sgd()).cost == (1, 3, 2)
    assert operations(Penalised) == 2 * operations(FINETUNE)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="method.epsilon=-1.0"):
        Penalised(classify(MeanPool()), sgd(), epsilon=-1.0)
