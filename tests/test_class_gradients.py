"""Gradients of classes: against autograd, by closed forms, and what steps along them do."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from testbed import MeanPool, Tensors, batches, bert, classify, close, same
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from transformers import BertForSequenceClassification

from lit_adv.class_gradients import by_passes, examples_of, gradient, of_head
from lit_adv.functional.accordance import Accordance
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Task

Losses = Callable[[Any], Tensor]
Gradients = dict[int, list[Tensor]]


def of_task(task: Task) -> Losses:
    """By the task's own losses."""
    return lambda batch: task.losses(task(batch), batch)


def of_batch(losses: Losses, batch: Any, weights: Sequence[Tensor]) -> list[Tensor]:
    """Of the mean over all examples."""
    return list(torch.autograd.grad(losses(batch).mean(), weights))


def flat(parts: list[Tensor]) -> Tensor:
    """One vector."""
    return torch.cat([part.flatten() for part in parts])


def three_classes(size: int = 9) -> Tensors:
    """Of which one has a single example."""
    (batch,) = batches(size=size)
    labels = torch.tensor([2, 0, 2, 2, 1, 0, 0, 2, 0, 2, 2, 0][:size])
    return {**batch, "labels": labels}


def by_class(batch: Tensors) -> dict[int, list[int]]:
    """Its rows."""
    return examples_of(batch["labels"], len(batch["labels"]))


def bert_of(labels: int) -> BertForSequenceClassification:
    """As in the testbed, with as many answers."""
    network = bert()
    network.classifier = nn.Linear(16, labels).double()
    return network


# ---- rows ----------------------------------------------------------------------------------------


def test_rows_are_those_of_each_class_in_the_order_of_classes():
    labels = torch.tensor([2, 0, 2, -1, 0])
    found = examples_of(labels, 5)
    assert found == {-1: [3], 0: [1, 4], 2: [0, 2]} and list(found) == [-1, 0, 2]


@pytest.mark.parametrize("labels", [None, torch.tensor([0.5, 2.0, 0.5]), torch.rand(3, 4)])
def test_what_has_no_classes_is_all_of_one(labels: Tensor | None):
    assert examples_of(labels, 3) == {0: [0, 1, 2]}


# ---- by passes -----------------------------------------------------------------------------------


def test_each_is_the_gradient_of_the_mean_loss_of_its_examples():
    task, batch = Classification(bert_of(3), num_labels=3), three_classes()
    weights = list(task.parameters())
    found = dict(by_passes(of_task(task), batch, by_class(batch), weights))
    losses = of_task(task)(batch)
    for label in range(3):
        mean = losses[batch["labels"] == label].mean()
        close(found[label], list(torch.autograd.grad(mean, weights, retain_graph=True)))


def test_weighted_by_their_examples_they_add_up_to_the_gradient_of_the_batch():
    task, batch = Classification(bert_of(3), num_labels=3), three_classes()
    weights, rows = list(task.parameters()), by_class(batch)
    added = [torch.zeros_like(weight) for weight in weights]
    for label, parts in by_passes(of_task(task), batch, rows, weights):
        for total, part in zip(added, parts, strict=True):
            total += len(rows[label]) / 9 * part
    close(added, of_batch(of_task(task), batch, weights))


def test_gradients_that_wait_for_the_optimizer_stay_as_they_are():
    task, batch = classify(bert()), batches(size=6)[0]
    weights = list(task.parameters())
    weights[0].grad = torch.full_like(weights[0], 7.0)
    before = weights[0].grad
    for _ in by_passes(of_task(task), batch, by_class(batch), weights):
        pass
    assert weights[0].grad is before and bool((before == 7.0).all())
    assert all(weight.grad is None for weight in weights[1:])


def test_only_the_weights_asked_for_have_a_gradient_and_idle_ones_have_zeros():
    task, (batch,) = classify(bert()), batches(size=6)
    idle = nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    few = [task.get_parameter("network.classifier.bias"), idle]
    for _, (bias, zeros) in by_passes(of_task(task), batch, by_class(batch), few):
        assert bias.shape == (2,) and bias.abs().max() > 0
        same(zeros, torch.zeros_like(idle))


def test_the_loss_scale_is_taken_off_again():
    task, (batch,) = classify(bert()), batches(size=6)
    weights, rows = list(task.parameters()), by_class(batch)
    plain = dict(by_passes(of_task(task), batch, rows, weights))
    same(dict(by_passes(of_task(task), batch, rows, weights, scale=1024.0)), plain)
    close(dict(by_passes(of_task(task), batch, rows, weights, scale=3.7)), plain)


def test_with_a_loss_scale_what_half_precision_would_lose_is_there():
    weight = torch.full((4,), 0.5, requires_grad=True)
    batch = {"x": torch.ones(3, 4), "labels": torch.tensor([0, 1, 0])}

    def losses(batch: Any) -> Tensor:
        return 1e-9 * (batch["x"].half() @ weight.half()).float()

    rows = by_class(batch)
    lost = dict(by_passes(losses, batch, rows, [weight]))
    found = dict(by_passes(losses, batch, rows, [weight], 2.0**20))
    for label in (0, 1):
        same(lost[label], [torch.zeros(4)])
        torch.testing.assert_close(found[label], [torch.full((4,), 1e-9)], rtol=1e-3, atol=0)


def test_a_graph_that_is_needed_again_is_kept():
    weight = torch.ones(3, requires_grad=True)
    loss = weight.exp().sum()
    same(gradient(loss, [weight], keep_graph=True), gradient(loss, [weight]))
    with pytest.raises(RuntimeError, match="second time"):
        gradient(loss, [weight])


def test_classes_pass_when_they_are_asked_for_and_once_each():
    task, batch, passes = Classification(bert_of(3), num_labels=3), three_classes(), []

    def losses(part: Any) -> Tensor:
        passes.append(part["labels"].tolist())
        return of_task(task)(part)

    classes = by_passes(losses, batch, by_class(batch), list(task.parameters()))
    assert passes == []
    next(classes)
    assert passes == [[0, 0, 0, 0]]
    assert len(list(classes)) == 2 and passes == [[0, 0, 0, 0], [1], [2, 2, 2, 2]]


# ---- batches of all kinds ------------------------------------------------------------------------


class Pair(NamedTuple):
    """A batch as some data loaders give it."""

    x: Tensor
    y: Tensor


def linear() -> nn.Linear:
    """Five numbers, three classes."""
    torch.manual_seed(1)
    return nn.Linear(5, 3).double()


def points(count: int = 8) -> Pair:
    """Numbers with their classes."""
    stream = torch.Generator().manual_seed(count)
    x = torch.randn(count, 5, generator=stream, dtype=torch.float64)
    return Pair(x, torch.randint(0, 3, (count,), generator=stream))


def cross_entropy(head: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Of numbers and classes."""
    return lambda x, y: F.cross_entropy(head(x), y, reduction="none")


NESTED: dict[str, tuple[Callable[[Pair], Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "tuple": (tuple, lambda batch: (batch[0], batch[1])),
    "list": (list, lambda batch: (batch[0], batch[1])),
    "namedtuple": (lambda pair: pair, lambda batch: (batch.x, batch.y)),
    "mapping": (lambda pair: OrderedDict(pair._asdict()), lambda batch: (batch["x"], batch["y"])),
    "deep": (
        lambda pair: {"a": [("text", pair.x), None], "b": {"c": (pair.y, torch.tensor(3.0))}},
        lambda batch: (batch["a"][0][1], batch["b"]["c"][0]),
    ),
}


@pytest.mark.parametrize("kind", list(NESTED))
def test_batches_may_be_nested(kind: str):
    pack, unpack = NESTED[kind]
    head, pair = linear(), points()
    weights, rows = list(head.parameters()), examples_of(pair.y, 8)
    assert len(rows) == 3
    loss = cross_entropy(head)
    found = dict(by_passes(lambda batch: loss(*unpack(batch)), pack(pair), rows, weights))
    for label, mine in rows.items():
        close(found[label], of_batch(lambda b: loss(*b), (pair.x[mine], pair.y[mine]), weights))


@dataclass
class Custom:
    """A batch that nobody can cut."""

    x: Tensor
    y: Tensor


def test_a_batch_that_is_not_cut_is_refused():
    head, pair = linear(), points()
    loss, rows = cross_entropy(head), examples_of(pair.y, 8)
    classes = by_passes(lambda b: loss(b.x, b.y), Custom(*pair), rows, list(head.parameters()))
    with pytest.raises(ValueError, match="one for each"):
        list(classes)


def test_regression_is_of_one_class_whose_gradient_is_that_of_the_batch():
    task, batch = regression()
    weights, rows = list(task.parameters()), examples_of(batch["labels"], 6)
    found = dict(by_passes(of_task(task), batch, rows, weights))
    close(found, {0: of_batch(of_task(task), batch, weights)})


# ---- of the head ---------------------------------------------------------------------------------


def regression() -> tuple[Regression, Tensors]:
    """Numbers between 0 and 5."""
    (batch,) = batches(size=6)
    labels = torch.tensor([0.0, 4.5, 2.0, 3.3, 1.1, 5.0], dtype=torch.float64)
    return Regression(bert_of(1)), {**batch, "labels": labels}


def head_of(task: Task) -> nn.Linear:
    """BERT's or that of the mean."""
    network: Any = task.network
    return network.classifier if hasattr(network, "classifier") else network.head


def agree_with_autograd(
    losses: Losses, batch: Any, rows: dict[int, list[int]], head: nn.Linear, network: nn.Module
) -> Gradients:
    """The same as by passes, restricted to the head."""
    found = dict(of_head(losses, batch, rows, head, network))
    close(found, dict(by_passes(losses, batch, rows, list(head.parameters()))))
    assert list(found) == list(rows)
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_the_heads_gradients_are_autograds_restricted_to_it(bias: bool):
    task, batch = Classification(bert_of(3), num_labels=3), three_classes()
    head = head_of(task)
    if not bias:
        head.register_parameter("bias", None)
    found = agree_with_autograd(of_task(task), batch, by_class(batch), head, task)
    assert [len(parts) for parts in found.values()] == [2 if bias else 1] * 3


def test_so_they_are_for_regression():
    task, batch = regression()
    agree_with_autograd(of_task(task), batch, examples_of(batch["labels"], 6), head_of(task), task)


class Tagger(nn.Module):
    """A class for each token, of which an example's loss is the mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
        self.head = nn.Linear(4, 3)
        self.double()

    def losses(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Of each example."""
        x, tags, _ = batch
        answers = self.head(self.body(x)).transpose(1, 2)
        return F.cross_entropy(answers, tags, reduction="none").mean(1)


def test_of_a_head_that_answers_for_tokens_these_are_added_up():
    tagger, stream = Tagger(), torch.Generator().manual_seed(0)
    x = torch.randn(6, 7, 5, generator=stream, dtype=torch.float64)
    batch = (x, torch.randint(0, 3, (6, 7), generator=stream), torch.tensor([0, 1, 1, 0, 1, 1]))
    agree_with_autograd(tagger.losses, batch, examples_of(batch[2], 6), tagger.head, tagger)


def test_of_cross_entropy_inner_products_have_a_closed_form():
    task, (batch,) = classify(bert()), batches(size=6)
    each = {row: [row] for row in range(6)}
    grads = {row: flat(g) for row, g in of_head(of_task(task), batch, each, head_of(task), task)}
    hidden: list[Tensor] = []
    handle = head_of(task).register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
    p = task(batch).softmax(1)
    handle.remove()
    r, (h,) = p - F.one_hot(batch["labels"], 2), hidden
    gram = torch.stack([grads[row] for row in range(6)])
    close(gram @ gram.T, ((r @ r.T) * (1 + h @ h.T)).detach())
    # Of two classes: minus twice the odds of both wrong ones, where labels differ.
    wrong = p.gather(1, 1 - batch["labels"].unsqueeze(1)).squeeze(1)
    signs = torch.where(batch["labels"].unsqueeze(1) == batch["labels"], 1.0, -1.0)
    close((gram @ gram.T), (2 * signs * torch.outer(wrong, wrong) * (1 + h @ h.T)).detach())


def test_the_head_takes_one_pass_over_the_batch_without_a_graph_before_it():
    task, batch = classify(bert()), batches(size=6)[0]
    graphs: list[bool] = []
    head = head_of(task)
    handle = head.register_forward_pre_hook(lambda _, given: graphs.append(given[0].requires_grad))
    assert len(list(of_head(of_task(task), batch, by_class(batch), head, task))) == 2
    handle.remove()
    assert graphs == [False]
    assert all(weight.grad is None for weight in task.parameters())


def test_slopes_of_well_learnt_examples_do_not_vanish_in_half_precision():
    head = nn.Linear(1, 2).half()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[20.0], [0.0]]))
        head.bias.zero_()
    batch = (torch.ones(1, 1).half(), torch.tensor([0]))
    loss = cross_entropy(head)
    ((_, (weight, bias)),) = of_head(lambda b: loss(*b), batch, {0: [0]}, head, head)
    small = torch.sigmoid(torch.tensor(-20.0))  # less than float16 has
    torch.testing.assert_close(bias[1], small, rtol=1e-4, atol=0)
    torch.testing.assert_close(weight.squeeze(1), bias, rtol=0, atol=0)


def test_weights_train_again_even_where_the_losses_raise():
    task, (batch,) = classify(bert()), batches(size=6)
    head = head_of(task)
    frozen = task.get_parameter("network.bert.pooler.dense.weight").requires_grad_(False)

    def broken(batch: Any) -> Tensor:
        task(batch)
        raise RuntimeError("out of memory, say")

    for losses in (broken, of_task(task)):
        try:
            list(of_head(losses, batch, by_class(batch), head, task))
            assert losses is not broken
        except RuntimeError:
            assert losses is broken
        idle = [weight for weight in task.parameters() if not weight.requires_grad]
        assert len(idle) == 1 and idle[0] is frozen
        assert not head._forward_hooks
        assert task(batch).grad_fn is not None


def test_losses_that_pass_the_head_not_once_are_refused():
    head, pair = linear(), points()
    rows = examples_of(pair.y, 8)
    loss = cross_entropy(head)
    for losses in (
        lambda b: loss(*b) + loss(*b),  # twice
        lambda b: b[0].sum(1) * head.weight.sum(),  # never
        lambda b: loss(b[0].repeat(2, 1), b[1].repeat(2)).view(2, 8).sum(0),  # for two each
    ):
        with pytest.raises(ValueError, match="pass through"):
            list(of_head(losses, pair, rows, head, head))
    assert not head._forward_hooks


# ---- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [bert, lambda: MeanPool(bend=True)], ids=["bert", "mean"])
def test_a_step_on_one_batch_changes_the_loss_of_another_by_the_inner_product(network: Any):
    task = classify(network())
    one, other = (
        {**batch, "labels": torch.tensor([label] * 4)}
        for label, batch in enumerate(batches(2, size=4))
    )
    losses, weights = of_task(task), list(task.parameters())
    accordance = Accordance("none")
    for batch in (one, other):
        accordance.update(by_passes(losses, batch, by_class(batch), weights))
    inner = accordance.compute()["cross"]
    ((_, step),) = by_passes(losses, one, by_class(one), weights)
    before, errors = losses(other).mean().item(), []
    saved = [weight.detach().clone() for weight in weights]
    for size in (1e-3, 5e-4, 2.5e-4):
        with torch.no_grad():
            for weight, start, part in zip(weights, saved, step, strict=True):
                weight.copy_(start - size * part)
            errors.append((losses(other).mean().item() - before) / size + inner)
    assert abs(inner) > 1e-2 and abs(errors[-1]) < 0.1 * abs(inner)
    # Of first order in the step: half the step, half the error.
    for wide, narrow in zip(errors, errors[1:], strict=False):
        assert wide / narrow == pytest.approx(2, abs=0.05)


# ---- logistic regression at its optimum ----------------------------------------------------------


def fitted(x: Tensor, y: Tensor, classes: int) -> nn.Linear:
    """To the last bit, by Newton's steps."""
    head = nn.Linear(x.shape[1], classes).double()
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)

    def loss(w: Tensor) -> Tensor:
        return F.cross_entropy(ones @ w.view(classes, -1).T, y)

    w = torch.zeros(classes * ones.shape[1], dtype=torch.float64)
    for _ in range(
        12
    ):  # one and the same for all classes changes nothing: no inverse, a pseudo one
        slope = jacobian(loss, w)
        w = w - torch.linalg.pinv(hessian(loss, w), rtol=1e-10, hermitian=True) @ slope
    assert jacobian(loss, w).abs().max() < 1e-14
    with torch.no_grad():
        weight, bias = w.view(classes, -1).split([x.shape[1], 1], 1)
        head.weight.copy_(weight)
        head.bias.copy_(bias.squeeze(1))
    return head


@pytest.mark.parametrize("counts", [(30, 30), (40, 15), (20, 30, 25), (10, 40, 12, 8)])
def test_at_its_optimum_classes_of_a_logistic_regression_do_not_agree(counts: tuple[int, ...]):
    stream = torch.Generator().manual_seed(len(counts))
    y = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    x = torch.randn(len(y), 3, generator=stream, dtype=torch.float64) + 0.5 * y.unsqueeze(1)
    head, k = fitted(x, y, len(counts)), len(counts)
    loss, rows = cross_entropy(head), examples_of(y, len(y))
    accordance = Accordance("none")
    for _ in range(2):  # the whole data twice: pairs of different batches are pairs of classes
        accordance.update(of_head(lambda b: loss(*b), (x, y), rows, head, head))
    found = accordance.compute()
    matrix, shares = found["matrix"], torch.tensor(counts).double() / len(y)
    assert found["classes"] == list(range(k))
    weighted = torch.outer(shares, shares) * matrix
    own = float(weighted.trace())
    assert float(weighted.sum()) == pytest.approx(0, abs=1e-12)  # the gradient of all vanishes
    assert float(weighted.sum() - own) == pytest.approx(-own, abs=1e-12)
    assert own > 1e-4
    if k == 2:  # one class pulls against the other
        assert float(matrix[0, 1] / (matrix[0, 0] * matrix[1, 1]).sqrt()) == pytest.approx(-1)
    if k == 2 and counts[0] == counts[1]:
        assert found["cross"] == pytest.approx(-found["same"])


def test_far_from_it_they_may_agree():
    # So the sign above is not one that any weights would have.
    x = torch.ones(4, 1, dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1])
    head = nn.Linear(1, 3).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [0.0], [5.0]]))
        head.bias.zero_()
    loss, accordance = cross_entropy(head), Accordance("none")
    for _ in range(2):
        accordance.update(of_head(lambda b: loss(*b), (x, y), examples_of(y, 4), head, head))
    assert accordance.compute()["cross"] > 0.5


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_of_a_head_that_knows_nothing_other_labels_disagree_by_one_over_k(classes: int):
    head = nn.Linear(4, classes).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    h = torch.randn(classes, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(classes)
    loss = cross_entropy(head)
    grads = dict(of_head(lambda b: loss(*b), (h, y), examples_of(y, classes), head, head))
    vectors = torch.stack([flat(grads[label]) for label in range(classes)])
    apart = torch.full((classes, classes), -1 / classes, dtype=torch.float64)
    close(vectors @ vectors.T, (torch.eye(classes).double() + apart) * (1 + h @ h.T))
    slopes = torch.stack([grads[label][1] for label in range(classes)])
    found = slopes @ slopes.T
    assert math.isclose(float(found[0, 1]), -1 / classes, rel_tol=1e-12)
