"""Where weights are sharded, training is that of a single process with the whole network."""

from functools import cache
from typing import Any

import pytest
import torch
from distributed.cases import JOINT, REFUSED, SHARDED
from distributed.launch import launch
from distributed.train import train
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

from lit_adv import parallel

Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ends with, by case."""
    return launch(tmp_path_factory.mktemp("fsdp2"), "fsdp2")


@cache
def alone(name: str) -> Outcome:
    return train(SHARDED[name])


@pytest.mark.parametrize("name", [n for n, case in SHARDED.items() if case.method not in JOINT])
def test_weights_are_those_of_one_process(name: str, ranks: list[dict[str, Any]]):
    one, many = alone(name), ranks[0][name]
    torch.testing.assert_close(many["weights"], one["weights"], rtol=1e-9, atol=1e-9)
    assert many["steps"] == one["steps"]
    assert many["loss"] == pytest.approx(one["loss"], rel=1e-9)
    start = SHARDED[name].build().state_dict()
    assert any(not torch.equal(start[key], value) for key, value in many["weights"].items())


@pytest.mark.parametrize("name", SHARDED)
def test_all_processes_have_the_same_weights(name: str, ranks: list[dict[str, Any]]):
    first, second = (rank[name]["weights"] for rank in ranks)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_whole_weights_is_refused(name: str, ranks: list[dict[str, Any]]):
    for rank in ranks:
        assert REFUSED[name][1] in rank[f"refused {name}"]


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_step_by_themselves_are_refused(strategy: type):
    with pytest.raises(ValueError, match="trainer.strategy=.*take trainer=fsdp2"):
        parallel.check(object.__new__(strategy))
