"""The diagonal of the Fisher information, example by example."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from testbed import (
    MeanPool,
    Tensors,
    batches,
    bert,
    classify,
    close,
    cut,
    loss,
    same,
    weights,
)
from torch import Tensor, nn

from lit_adv.fisher import diagonal
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Task


def _all(task: Task) -> dict[str, Tensor]:
    return dict(task.named_parameters())


def _features(network: MeanPool, batch: Tensors) -> Tensor:
    real = batch["attention_mask"].unsqueeze(-1)
    return (network.words(batch["input_ids"]) * real).sum(1) / real.sum(1)


def _features_of(network: MeanPool, data: list[Tensors]) -> tuple[Tensor, Tensor]:
    x = torch.cat([_features(network, batch) for batch in data]).detach()
    return x, torch.cat([batch["labels"] for batch in data])


def test_of_logistic_regression_it_is_the_square_of_the_residual_times_the_input():
    network, data = MeanPool(labels=2), batches(3, size=5)
    x, y = _features_of(network, data)
    residual = network.head(x).softmax(-1).detach() - nn.functional.one_hot(y, 2)
    scores = diagonal(classify(network), _all(classify(network)), data)
    expected = (residual.square().unsqueeze(-1) * x.square().unsqueeze(1)).mean(0)
    close(scores["network.head.weight"], expected)
    close(scores["network.head.bias"], residual.square().mean(0))


def test_for_labels_drawn_from_the_model_it_is_the_diagonal_of_the_hessian():
    """Every text once with each label, by turns: weighted by its probability."""
    network, (batch,) = MeanPool(labels=2), batches(size=6)
    x, _ = _features_of(network, [batch])
    p = network.head(x).softmax(-1).detach()
    task, total = classify(network), torch.zeros(2, 4).double()
    for i, text in enumerate(cut(batch, *[1] * 6)):
        for label in (0, 1):
            one = {**text, "labels": torch.tensor([label])}
            total += p[i, label] * diagonal(task, _all(task), [one])["network.head.weight"] / 6
    curvature = (p * (1 - p)).unsqueeze(-1) * x.square().unsqueeze(1)
    close(total, curvature.mean(0))


def test_of_least_squares_it_is_the_square_of_twice_the_residual_times_the_input():
    network = MeanPool(labels=1)
    data = [{**batch, "labels": batch["labels"].double() - 0.3} for batch in batches(2, size=5)]
    x, y = _features_of(network, data)
    residual = network.head(x).squeeze(-1).detach() - y
    task = Regression(network)
    scores = diagonal(task, _all(task), data)
    close(scores["network.head.weight"][0], 4 * (residual.square() * x.T.square()).mean(1))
    close(scores["network.head.bias"][0], 4 * residual.square().mean())


def _by_hand(network: nn.Module, examples: list[Tensors]) -> Tensors:
    named = dict(network.named_parameters())
    scores = {f"network.{name}": torch.zeros_like(w) for name, w in named.items()}
    for example in examples:
        grads = torch.autograd.grad(loss(network, example).sum(), list(named.values()))
        for score, grad in zip(scores.values(), grads, strict=True):
            score += grad.square() / len(examples)
    return scores


def test_of_a_transformer_it_is_the_mean_over_single_examples():
    network, data = bert(), batches(2, size=5)
    task = classify(network)
    scores = diagonal(task, _all(task), data)
    singles = [example for batch in data for example in cut(batch, *[1] * 5)]
    close(scores, _by_hand(network, singles))


def test_it_is_not_the_square_of_a_batchs_gradient():
    task, data = classify(bert()), batches(size=8)
    scores = diagonal(task, _all(task), data)
    of_batch = _by_hand(bert(), data)  # 64 times the square of the mean gradient
    name = "network.classifier.weight"
    assert (scores[name] > 1.5 * of_batch[name] / 64).all()


@pytest.mark.parametrize("build", [bert, partial(MeanPool, leak=True)], ids=["bert", "leak"])
def test_it_does_not_matter_how_examples_are_batched_and_padded(build: Any):
    """Not even to a network that looks at padding: it sees none."""
    (batch,) = batches(size=6)
    longer = {
        name: value if name == "labels" else nn.functional.pad(value, (0, 5))
        for name, value in batch.items()
    }
    task = classify(build())
    whole = diagonal(task, _all(task), [batch])
    close(diagonal(task, _all(task), cut(batch, 1, 3, 2)), whole)
    close(diagonal(task, _all(task), cut(longer, 4, 2)), whole)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 100])
def test_no_more_than_so_many_examples_are_taken(count: int):
    task, data = classify(MeanPool()), batches(3)
    singles = [example for batch in data for example in cut(batch, *[1] * 4)]
    found = diagonal(task, _all(task), data, count)
    close(found, diagonal(task, _all(task), singles[:count]))


def test_after_enough_examples_no_further_batch_is_read():
    task, data = classify(MeanPool()), batches(3)

    def reading() -> Iterator[Tensors]:
        yield from data[:2]
        raise AssertionError("read on")

    diagonal(task, _all(task), reading(), 8)


@pytest.mark.parametrize("chosen", ["head", "words"])
def test_only_the_weights_asked_for_are_scored_and_those_unused_score_zero(chosen: str):
    task = classify(MeanPool())
    task.register_parameter("head_unused", nn.Parameter(torch.ones(3)))
    some = {name: weight for name, weight in _all(task).items() if chosen in name}
    scores = diagonal(task, some, batches())
    assert scores.keys() == some.keys()
    for name, score in scores.items():
        assert score.shape == some[name].shape
        assert bool((score == 0).all()) == (name == "head_unused")


def test_no_gradient_mode_statistic_or_random_stream_is_moved():
    network = MeanPool(dropout=0.5, norm=True)
    task = classify(network)
    network.dropout.eval()  # one part is in evaluation mode, and stays so
    for weight in task.parameters():
        weight.grad = torch.full_like(weight, 7.0)
    modes = [module.training for module in task.modules()]
    before = (weights(task), {name: b.clone() for name, b in task.named_buffers()})
    stream = torch.get_rng_state()
    diagonal(task, _all(task), batches())
    same((weights(task), dict(task.named_buffers())), before)
    same(torch.get_rng_state(), stream)
    assert [module.training for module in task.modules()] == modes
    assert all(weight.requires_grad for weight in task.parameters())
    for weight in task.parameters():
        same(weight.grad, torch.full_like(weight, 7.0))


def test_dropout_is_off():
    dropping, plain = classify(MeanPool(dropout=0.5)), classify(MeanPool())
    data = batches(2)
    same(diagonal(dropping, _all(dropping), data), diagonal(plain, _all(plain), data))


def test_modes_come_back_after_an_error():
    task = classify(MeanPool(dropout=0.5))
    broken: list[Any] = [{"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.ones(1, 3)}]
    with pytest.raises(KeyError):
        diagonal(task, _all(task), broken)
    assert all(module.training for module in task.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision_weights_do_not_vanish(dtype: torch.dtype):
    """A gradient of 1e-5 is a number in float16; its square is none."""
    network = MeanPool(labels=2).to(dtype)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.weight[0, 0] = 1e-4
    task = classify(network)
    scores = diagonal(task, _all(task), batches())["network.words.weight"]
    assert scores.dtype == torch.float32
    assert 0 < scores[:, 0].max() < 2.0**-24
