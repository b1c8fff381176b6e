"""Several processes in other people's ways: they train what one process does."""

from functools import cache
from typing import Any

import pytest
import torch
from adoption.processes import CASES, STEPS, adopted
from adoption.theirs import in_double
from distributed.launch import launch
from testbed import bert

WAYS = ("adopted", "bare", "fabric")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("adopted")
    return launch(folder, "adopted", module="adoption.processes")


@cache
def alone(name: str) -> dict[str, Any]:
    with in_double():
        return adopted(CASES[name], None)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_several_processes_train_what_one_does(way: str, name: str, ranks: list[dict[str, Any]]):
    first, second = (rank[f"{way} {name}"] for rank in ranks)
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    torch.testing.assert_close(first["weights"], alone(name)["weights"], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_reduced_once_per_step(way: str, name: str, ranks: list[dict[str, Any]]):
    """Twice where an update looks twice, and once per step of a method's own."""
    model = sum(weight.numel() for weight in bert().parameters())
    times = {"sam": 2, "parts": 2, "penalty": 2, "free_at": 3}.get(name, 1)
    assert ranks[0][f"{way} {name}"]["reduced"] == times * STEPS * model
