"""Gradients of single examples against a loop of autograd; accordance between examples."""

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functional import pairs
from testbed import MeanPool, Tensors, batches, bert, classify, close
from torch import Tensor, nn
from torch.func import functional_call

from lit_adv.attention import twice_differentiable
from lit_adv.functional.accordance import Accordance
from lit_adv.functional.example_gradients import example_gradients
from lit_adv.tasks.task import Task

Losses = Callable[[dict[str, Tensor], Any], Tensor]


def perceptron() -> nn.Module:
    """Three classes of five numbers."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def points(count: int = 6) -> tuple[Tensor, Tensor]:
    """Numbers and their classes."""
    stream = torch.Generator().manual_seed(count)
    x = torch.randn(count, 5, generator=stream, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=stream)


def cross_entropy(network: nn.Module) -> Losses:
    """Of numbers and classes."""

    def losses(weights: dict[str, Tensor], batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(functional_call(network, weights, (x,)), y, reduction="none")

    return losses


def of_task(task: Task) -> Losses:
    """By the task's own losses."""
    return lambda weights, batch: task.losses(functional_call(task, weights, (batch,)), batch)


def weights(network: nn.Module) -> Tensors:
    """By name."""
    return {name: weight.detach() for name, weight in network.named_parameters()}


def one_by_one(network: nn.Module, losses: Callable[[Any], Tensor], examples: list[Any]) -> Tensors:
    """A forward and a backward pass over each."""
    grads = [torch.autograd.grad(losses(e).sum(), list(network.parameters())) for e in examples]
    names = dict(network.named_parameters())
    return {n: torch.stack([grad[i] for grad in grads]) for i, n in enumerate(names)}


def gradients(x: Tensor, y: Tensor) -> list[list[Tensor]]:
    """Of the perceptron, for each example."""
    network = perceptron()
    found = example_gradients(cross_entropy(network), weights(network), (x, y))
    return [[gradient[i] for gradient in found.values()] for i in range(len(x))]


# ---- against a loop ------------------------------------------------------------------------------


def test_they_are_those_of_passes_over_single_examples():
    network, (x, y) = perceptron(), points()
    found = example_gradients(cross_entropy(network), weights(network), (x, y))
    examples = [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    named: Tensors = dict(network.named_parameters())
    close(found, one_by_one(network, lambda e: cross_entropy(network)(named, e), examples))
    assert all(weight.grad is None for weight in network.parameters())


def test_their_mean_is_the_gradient_of_the_batch_and_weights_may_be_few():
    network, batch = perceptron(), points()
    few = {name: weight for name, weight in weights(network).items() if name.startswith("2.")}
    found = example_gradients(cross_entropy(network), few, batch)
    loss = cross_entropy(network)(dict(network.named_parameters()), batch).mean()
    wanted = torch.autograd.grad(loss, list(network.parameters())[2:])
    close([gradient.mean(0) for gradient in found.values()], list(wanted))
    assert list(found) == ["2.weight", "2.bias"]


def test_batches_may_be_nested():
    network, batch = perceptron(), points()
    plain = cross_entropy(network)

    def losses(named: dict[str, Tensor], batch: Any) -> Tensor:
        return plain(named, (batch["given"][0]["x"], batch["wanted"][1]))

    nested = {"given": [{"x": batch[0]}], "wanted": (batch[1], batch[1])}
    found = example_gradients(losses, weights(network), nested)
    close(found, example_gradients(plain, weights(network), batch))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_attend_to_one_example_as_to_many(attention: str):
    network = bert(layers=2)
    network.set_attn_implementation(attention)
    task = classify(network)
    (batch,) = batches(size=5)
    assert not batch["attention_mask"].all()
    # Of a mask [batch, tokens] transformers asks whether it hides anything, which vmap cannot tell.
    batch["attention_mask"] = batch["attention_mask"].bool()[:, None, None, :]
    with twice_differentiable():  # fused kernels know no vmap: they would go one by one
        found = example_gradients(of_task(task), weights(task), batch)
        examples = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(5)]
        close(found, one_by_one(task, lambda e: task.losses(task(e), e), examples))


def test_dropout_does_what_it_is_told_to():
    task = classify(MeanPool(dropout=0.5, width=16))
    (batch,) = batches(size=1)
    twins = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.items()}
    with pytest.raises(RuntimeError, match="randomness"):
        example_gradients(of_task(task), weights(task), twins)
    for randomness, alike in (("same", True), ("different", False)):
        found = example_gradients(of_task(task), weights(task), twins, randomness=randomness)
        one, other = found["network.words.weight"]
        assert torch.equal(one, other) == alike


# ---- between examples ----------------------------------------------------------------------------


def test_accordance_between_examples_is_the_mean_over_their_pairs():
    grads = gradients(*points())
    for normalize in ("cosine", "none"):
        accordance = Accordance(normalize)
        for gradient in grads:
            accordance.update({0: gradient})
        found, wanted = accordance.compute(), pairs.means([{0: g} for g in grads], normalize)
        assert found["all"] == pytest.approx(wanted["all"], rel=0, abs=1e-10)
        assert found["pairs"]["all"] == len(list(permutations(grads, 2)))


def test_it_is_an_unbiased_estimate_of_the_squared_length_of_the_mean_gradient():
    # All draws of three, with replacement, from a population of four.
    population = gradients(*points(4))
    estimates = []
    for draw in product(population, repeat=3):
        accordance = Accordance("none")
        for gradient in draw:
            accordance.update({0: gradient})
        estimates.append(accordance.compute()["all"])
    mean = torch.stack([pairs.flat(gradient) for gradient in population]).mean(0)
    assert pairs.mean(estimates) == pytest.approx(float(mean @ mean), rel=0, abs=1e-10)
    squares = [pairs.inner(gradient, gradient) for gradient in population]
    assert pairs.mean(squares) > 1.1 * float(mean @ mean)  # with pairs of one it would be biased
