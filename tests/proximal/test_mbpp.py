"""MBPP: the momentum, its switch, and its limits 0 and 1."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)
closely = partial(torch.testing.assert_close, rtol=1e-13, atol=1e-14)


class _Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 3)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids).mean(1))


def _task() -> Classification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classification(_Bag().double(), num_labels=3)


def _table(task: Classification) -> Tensor:
    return next(task.parameters()).detach()


def _reference(mbpp: MBPP) -> Tensor:
    assert mbpp.teacher is not None
    return mbpp.teacher.weights["network.table.weight"]


def _move(task: Classification, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    _table(task).add_(torch.randn(9, 3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("total", [10, 1000, 12345])
@pytest.mark.parametrize("switch", [0.1, 0.25, 0.5])
def test_the_momentum_rises_after_its_share_of_the_steps(total: int, switch: float):
    mbpp = MBPP(beta=0.9, late_beta=0.99, switch=switch)
    early = [step for step in range(1, total + 1) if mbpp.momentum(step, total) == 0.9]
    late = [step for step in range(1, total + 1) if mbpp.momentum(step, total) == 0.99]
    assert early + late == list(range(1, total + 1))
    assert len(early) == math.floor(total * switch)


def test_the_papers_momentum_switches_after_a_tenth():
    momentum = partial(MBPP().momentum, total_steps=1000)
    assert [momentum(step) for step in (1, 99, 100)] == [0.99, 0.99, 0.99]
    assert [momentum(step) for step in (101, 500, 1000)] == [0.999, 0.999, 0.999]


def test_switch_zero_is_late_from_the_start_and_one_is_never():
    assert all(MBPP(switch=0.0).momentum(step, 50) == 0.999 for step in range(1, 51))
    assert all(MBPP(switch=1.0).momentum(step, 50) == 0.99 for step in range(1, 51))


def test_towards_standing_weights_the_distance_shrinks_by_each_steps_momentum():
    task, mbpp = _task(), MBPP(beta=0.5, late_beta=0.9, switch=0.4)
    mbpp.begin(task)
    start = _reference(mbpp).clone()
    _move(task, seed=1)
    for step in range(1, 11):
        mbpp.follow(task, step, total_steps=10)
        kept = 0.5 ** min(step, 4) * 0.9 ** max(step - 4, 0)
        closely(_reference(mbpp), _table(task) + kept * (start - _table(task)))


def test_the_reference_is_the_momentum_average_of_moving_weights():
    task, mbpp = _task(), MBPP(beta=0.7, late_beta=0.7)
    mbpp.begin(task)
    expected = _table(task).clone()
    for step in range(1, 9):
        _move(task, seed=step)
        mbpp.follow(task, step, total_steps=8)
        expected = 0.7 * expected + 0.3 * _table(task)
        closely(_reference(mbpp), expected)


def test_without_momentum_the_reference_is_the_weights_of_the_last_step():
    task, mbpp = _task(), MBPP(beta=0.0, late_beta=0.0)
    mbpp.begin(task)
    for step in range(1, 6):
        _move(task, seed=step)
        assert not torch.equal(_reference(mbpp), _table(task))
        mbpp.follow(task, step, total_steps=5)
        exactly(_reference(mbpp), _table(task))


def test_with_momentum_one_the_reference_never_moves():
    task, mbpp = _task(), MBPP(beta=1.0, late_beta=1.0)
    start = _table(task).clone()
    mbpp.begin(task)
    for step in range(1, 6):
        _move(task, seed=step)
        mbpp.follow(task, step, total_steps=5)
        exactly(_reference(mbpp), start)


def test_before_it_begins_there_is_nothing_to_follow():
    mbpp = MBPP()
    mbpp.follow(_task(), 1, 10)
    assert mbpp.teacher is None


@pytest.mark.parametrize("name", ["beta", "late_beta", "switch"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_momenta_and_shares_outside_zero_and_one_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=rf"^proximal\.{name}="):
        MBPP(**{name: value})
