"""VBPP and what it shares with MBPP: the penalty, its gradient, the refreshes, the checkpoint."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.none import NoProximal
from lit_adv.proximal.proximal import Proximal
from lit_adv.proximal.vbpp import VBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Task

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)
closely = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)

IDS = torch.tensor([[5, 6, 7], [8, 9, 10], [5, 9, 0], [1, 2, 3], [4, 7, 11], [3, 8, 2]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]])


class _Pooled(nn.Module):
    """`W mean_t(e_t)` over the real tokens, in float64: linear in W."""

    def __init__(self, labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(labels)
            self.table = nn.Embedding(12, 4)
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(4, labels, bias=False)
        self.double()

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask[..., None]
        return (self.table(input_ids) * real).sum(1) / real.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(
            logits=self.head(self.dropout(self.features(input_ids, attention_mask)))
        )


def _classification(dropout: float = 0.0) -> tuple[Classification, dict[str, Tensor]]:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    batch = {"input_ids": IDS, "attention_mask": MASK, "labels": labels}
    return Classification(_Pooled(3, dropout), num_labels=3), batch


def _regression() -> tuple[Regression, dict[str, Tensor]]:
    labels = torch.tensor([0.3, -1.0, 2.0, 0.7, -0.2, 1.1], dtype=torch.float64)
    return Regression(_Pooled(1)), {"input_ids": IDS, "attention_mask": MASK, "labels": labels}


def _move(task: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in task.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def _weights(task: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in task.named_parameters()}


def _reference(proximal: Proximal) -> dict[str, Tensor]:
    assert proximal.teacher is not None
    return {name: weight.clone() for name, weight in proximal.teacher.weights.items()}


# ---- the penalty ---------------------------------------------------------------------------------


@pytest.mark.parametrize("proximal", [VBPP(), MBPP()], ids=["vbpp", "mbpp"])
@pytest.mark.parametrize("build", [_classification, _regression])
def test_at_the_reference_the_penalty_and_its_gradient_are_exactly_nothing(
    proximal: Proximal, build: Callable[[], tuple[Task, dict[str, Tensor]]]
):
    proximal = deepcopy(proximal)
    task, batch = build()
    proximal.begin(task)
    penalty = proximal.divergence(task, batch, task(batch))
    exactly(penalty.detach(), torch.zeros(6, dtype=torch.float64))
    for grad in torch.autograd.grad(penalty.mean(), list(task.parameters())):
        exactly(grad, torch.zeros_like(grad))


def test_with_one_step_per_refresh_the_update_would_be_the_plain_one():
    """So one step is refused; here it is refreshed by hand."""
    (plain, batch), (held, _) = _classification(), _classification()
    proximal = MBPP(weight=1e6, beta=0.0, late_beta=0.0)
    proximal.begin(held)
    for step in range(1, 4):
        for task in (plain, held):
            logits = task(batch)
            loss = task.losses(logits, batch).mean()
            if task is held:
                loss = loss + proximal.weight * proximal.divergence(held, batch, logits).mean()
            for weight, grad in zip(
                task.parameters(),
                torch.autograd.grad(loss, list(task.parameters())),
                strict=True,
            ):
                weight.data -= 0.5 * grad
        proximal.follow(held, step, total_steps=3)
    exactly(_weights(held), _weights(plain))


@pytest.mark.parametrize("steps", [1, 0, -3])
def test_one_step_per_refresh_is_refused(steps: int):
    with pytest.raises(ValueError, match=rf"^proximal\.steps={steps}: .*at least 2"):
        VBPP(steps=steps)


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_weights_that_are_no_weights_are_refused(weight: float):
    for build in (VBPP, MBPP):
        with pytest.raises(ValueError, match=r"^proximal\.weight="):
            build(weight=weight)


def test_the_penalty_compares_with_the_predictions_of_the_past():
    task, batch = _classification()
    proximal = VBPP()
    past = deepcopy(task)
    proximal.begin(task)
    _move(task)

    logits = task(batch)
    P, Q = logits.softmax(-1), past(batch).softmax(-1).detach()
    values = proximal.divergence(task, batch, logits)
    closely(values, ((P - Q) * (P / Q).log()).sum(-1))
    assert (values > 0).all()


def test_its_gradient_reaches_the_weights_through_the_live_predictions_alone():
    task, batch = _classification()
    proximal = VBPP()
    past = deepcopy(task)
    proximal.begin(task)
    _move(task)
    logits = task(batch)
    (grad,) = torch.autograd.grad(proximal.divergence(task, batch, logits).sum(), logits)

    P, Q = logits.detach().softmax(-1), past(batch).softmax(-1).detach()
    forward = (P * (P / Q).log()).sum(-1, keepdim=True)
    closely(grad, (P - Q) + P * ((P / Q).log() - forward))


def test_dropout_is_off_in_the_reference_and_on_in_the_task():
    task, batch = _classification(dropout=0.5)
    proximal = VBPP()
    proximal.begin(task)
    assert (proximal.divergence(task, batch, task(batch)) > 0).any()
    exactly(
        proximal.divergence(task, batch, deepcopy(task).eval()(batch)).detach(),
        torch.zeros(6, dtype=torch.float64),
    )


def test_the_reference_is_no_part_of_the_task():
    task, _ = _classification()
    before = list(task.parameters()), list(task.state_dict())
    proximal = VBPP()
    proximal.begin(task)
    assert all(a is b for a, b in zip(task.parameters(), before[0], strict=True))
    assert list(task.state_dict()) == before[1]


# ---- least squares, where all is known -----------------------------------------------------------


def _design(task: Regression) -> Tensor:
    assert isinstance(task.network, _Pooled)
    return task.network.features(IDS, MASK).detach()


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 30.0])
def test_one_step_of_least_squares_is_that_of_the_closed_form(mu: float):
    task, batch = _regression()
    head = task.get_parameter("network.head.weight")
    proximal = VBPP(weight=mu)
    proximal.begin(task)
    X, y, past = _design(task), batch["labels"], head.detach().clone()[0]
    with torch.no_grad():
        head += 0.3

    outputs = task(batch)
    objective = task.losses(outputs, batch).mean()
    objective = objective + mu * proximal.divergence(task, batch, outputs).mean()
    (grad,) = torch.autograd.grad(objective, head)
    w = head.detach()[0]
    closely(grad[0], 2 / 6 * (X.T @ (X @ w - y) + mu * X.T @ X @ (w - past)))


@pytest.mark.parametrize("mu", [0.5, 1.0, 30.0, 1e6])
def test_the_minimum_lies_between_least_squares_and_the_reference(mu: float):
    """At `(w_ls + mu * w_ref) / (1 + mu)`: with mu to infinity, predictions do not move."""
    task, batch = _regression()
    head = task.get_parameter("network.head.weight")
    proximal = MBPP(weight=mu)
    proximal.begin(task)
    X, y, past = _design(task), batch["labels"], head.detach().clone()[0]
    least_squares = torch.linalg.solve(X.T @ X, X.T @ y)
    with torch.no_grad():
        head.copy_((least_squares + mu * past) / (1 + mu))

    outputs = task(batch)
    divergence = proximal.divergence(task, batch, outputs)
    objective = task.losses(outputs, batch).mean() + mu * divergence.mean()
    (grad,) = torch.autograd.grad(objective, head)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-9)

    expected = (X @ (least_squares - past) / (1 + mu)).square()
    torch.testing.assert_close(divergence.detach(), expected, rtol=1e-8, atol=1e-24)


# ---- the refreshes -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_the_reference_is_refreshed_exactly_every_so_many_steps(steps: int):
    task, _ = _classification()
    proximal = VBPP(steps=steps)
    proximal.begin(task)
    expected = _weights(task)
    for step in range(1, 12):
        _move(task, seed=step)
        proximal.follow(task, step, total_steps=11)
        if step % steps == 0:
            expected = _weights(task)
        exactly(_reference(proximal), expected)


def test_every_fit_begins_with_the_weights_as_they_are():
    task, _ = _classification()
    proximal = VBPP()
    proximal.begin(task)
    exactly(_reference(proximal), _weights(task))
    _move(task)
    proximal.begin(task)
    exactly(_reference(proximal), _weights(task))


def test_without_proximal_there_is_no_reference():
    task, _ = _classification()
    proximal = NoProximal()
    proximal.follow(task, 1, 10)
    assert proximal.weight == 0
    assert proximal.teacher is None
    assert proximal.state_dict() == {}
    proximal.load_state_dict({})
    assert proximal.teacher is None


# ---- the checkpoint ------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [partial(VBPP, steps=3), MBPP], ids=["vbpp", "mbpp"])
def test_through_a_checkpoint_the_reference_goes_on_as_if_nothing_had_happened(
    build: Callable[[], Proximal], tmp_path: Path
):
    task, batch = _classification()
    proximal = build()
    proximal.begin(task)
    for step in range(1, 5):
        _move(task, seed=step)
        proximal.follow(task, step, total_steps=20)
    torch.save(proximal.state_dict(), tmp_path / "state.pt")
    saved = _reference(proximal)

    restored, again = build(), deepcopy(task)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    restored.begin(again)
    exactly(_reference(restored), saved)
    assert any(not torch.equal(saved[name], weight) for name, weight in _weights(again).items())

    for step in range(5, 9):
        for each, p in ((task, proximal), (again, restored)):
            _move(each, seed=step)
            p.follow(each, step, total_steps=20)
        exactly(_reference(restored), _reference(proximal))
    logits = task(batch)
    exactly(restored.divergence(again, batch, logits), proximal.divergence(task, batch, logits))


def test_loaded_references_share_no_memory_with_the_checkpoint():
    task, _ = _classification()
    proximal = VBPP(steps=2)
    proximal.begin(task)
    state = deepcopy(proximal.state_dict())
    before = {name: weight.clone() for name, weight in state["weights"].items()}
    restored = VBPP(steps=2)
    restored.load_state_dict(state)
    restored.begin(task)
    _move(task)
    restored.follow(task, 2, 10)
    exactly(state["weights"], before)


def test_a_reference_from_a_checkpoint_follows_the_network_to_its_device():
    """A checkpoint is read before the network moves to its device, training begins after."""
    task, _ = _classification()
    proximal = VBPP()
    proximal.begin(task)
    restored = VBPP()
    restored.load_state_dict(proximal.state_dict())

    task.to("meta")
    restored.begin(task)
    assert restored.teacher is not None
    assert {weight.device.type for weight in restored.teacher.weights.values()} == {"meta"}
