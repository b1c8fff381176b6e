"""Several processes train what a single one does, with one gradient reduction per step."""

from functools import cache
from typing import Any

import pytest
import torch
from distributed.cases import CASES, JOINT, Case
from distributed.launch import launch
from distributed.train import train

from lit_adv.updates.update import SecondLook

Outcome = dict[str, Any]

every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    """What each of two processes ends with, by case."""
    return launch(tmp_path_factory.mktemp("ddp"), "ddp")


@cache
def alone(name: str, micro_batches: int = 1) -> Outcome:
    return train(CASES[name], micro_batches=micro_batches)


def tolerance(case: Case) -> float:
    return 1e-9 if case.dtype == torch.float64 else 1e-5


def agree(one: Outcome, other: Outcome, case: Case) -> None:
    size = tolerance(case)
    torch.testing.assert_close(one["weights"], other["weights"], rtol=size, atol=size)
    assert one["steps"] == other["steps"]
    assert one["loss"] == pytest.approx(other["loss"], rel=size)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.method not in JOINT])
def test_weights_are_those_of_one_process_with_the_whole_batch(
    name: str, ranks: list[dict[str, Outcome]]
):
    agree(ranks[0][name], alone(name), CASES[name])


def test_terms_that_do_not_couple_examples_are_those_of_the_whole_batch(
    ranks: list[dict[str, Outcome]],
):
    agree(ranks[0]["infobert, apart"], alone("infobert, apart"), CASES["infobert, apart"])


# FreeAT refuses micro-batches; which examples come first depends on how batches are cut.
dividable = [
    name for name, case in CASES.items() if case.method != "free_at" and name != "child_d, some"
]


@pytest.mark.parametrize("name", dividable)
def test_weights_are_those_of_one_process_with_the_parts_as_micro_batches(
    name: str, ranks: list[dict[str, Outcome]]
):
    agree(ranks[0][name], alone(name, micro_batches=2), CASES[name])


@pytest.mark.parametrize("name", [n for n in dividable if CASES[n].method not in JOINT])
def test_micro_batches_are_one_batch(name: str):
    agree(alone(name, micro_batches=2), alone(name), CASES[name])
    agree(alone(name, micro_batches=3), alone(name), CASES[name])


@every_case
def test_processes_stay_alike_to_the_last_bit(name: str, ranks: list[dict[str, Outcome]]):
    first, second = (rank[name] for rank in ranks)
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    assert first["loss"] == second["loss"]


@every_case
def test_gradients_are_reduced_once_per_step_and_look(name: str, ranks: list[dict[str, Outcome]]):
    """However many passes, micro-batches and penalties."""
    case = CASES[name]
    module = case.build()
    size = sum(weight.numel() for weight in module.parameters())
    looks = 2 if isinstance(module.descent.update, SecondLook) else 1
    for rank in ranks:
        assert rank[name]["reduced"] == [looks * size] * len(rank[name]["reduced"])
    steps = ranks[0][name]["steps"]
    assert len(ranks[0][name]["reduced"]) == (3 * steps if case.method == "free_at" else steps)


def test_training_moves_the_weights(ranks: list[dict[str, Outcome]]):
    """Two trainings that did nothing would agree as well."""
    for name, case in CASES.items():
        before = case.build().state_dict()
        after = ranks[0][name]["weights"]
        moved = [float((after[key] - before[key]).abs().max()) for key in before]
        assert max(moved) > 1e-3, name
