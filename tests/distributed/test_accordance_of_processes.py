"""Gradient accordance of several processes is that of one which has seen all their batches."""

from functools import cache
from typing import Any

import pytest
import torch
from accordance.brute import at, gradients, means
from distributed.launch import launch
from distributed.watched import BATCHES, CASES, SHARDED, cases, data, module_of, trained
from testbed import same

Outcome = dict[str, Any]

near = pytest.approx
WORLDS = (2, 3)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Outcome]]:
    """What each process ends with, by their number."""

    def launched(world: int) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("watched")
        return launch(folder, str(world), module="distributed.watched", world=world)

    return {world: launched(world) for world in WORLDS}


@cache
def alone(kind: str, name: str, parts: int) -> Outcome:
    """One process, which takes the parts of several as micro-batches, or one batch of them."""
    return trained((CASES if kind == "ddp" else SHARDED)[name], kind, parts=parts)


def order(epoch: int) -> list[int]:
    """Of the batches."""
    return torch.randperm(BATCHES, generator=torch.Generator().manual_seed(epoch)).tolist()


def agree(found: Outcome, expected: Outcome, size: float, sketched: float) -> None:
    for one, other in zip(found["readings"], expected["readings"], strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            error = sketched if name.endswith(", error") else size
            assert one[name] == near(value, rel=error, abs=error * 1e-3, nan_ok=True), name
    for name, series in expected["epochs"].items():
        there = {step: v for step, v in found["epochs"][name].items() if step in series}
        assert there == near(series, rel=size, abs=size)


DDP = [(name, world) for world in WORLDS for kind, name in cases(world) if kind == "ddp"]


@pytest.mark.parametrize("name, world", [d for d in DDP if d[0] not in ("unwatched", "some")])
def test_readings_are_those_of_one_process_with_all_batches(
    name: str, world: int, ranks: dict[int, list[Outcome]]
):
    expected = alone("ddp", name, world)
    for rank in ranks[world]:
        agree(rank[f"ddp {name}"], expected, 1e-10, 1e-9)
    assert len(expected["readings"]) >= 2
    assert expected["readings"][0].keys() & {"cross", "validation"}


@pytest.mark.parametrize("name", [n for n in SHARDED if n != "unwatched"])
def test_readings_of_sharded_weights_are_those_of_the_joined_batches(
    name: str, ranks: dict[int, list[Outcome]]
):
    """But for standard errors by a sketch, which is another."""
    expected = alone("fsdp2", name, 2 if name == "head" else 1)  # its vectors are not sharded
    for rank in ranks[2]:
        agree(rank[f"fsdp2 {name}"], expected, 1e-9, 0.05 if name == "fixed" else 1e-9)
    assert expected["readings"][0].keys() & {"cross, error", "validation"}


@pytest.mark.parametrize("world", WORLDS)
def test_all_processes_have_the_same_readings_to_the_last_bit(
    world: int, ranks: dict[int, list[Outcome]]
):
    first, *others = ranks[world]
    for other in others:
        for kind, name in cases(world):
            mine, theirs = first[f"{kind} {name}"], other[f"{kind} {name}"]
            for key in ("readings", "epochs", "weights"):
                same(theirs[key], mine[key], equal_nan=True)


@pytest.mark.parametrize("world", WORLDS)
def test_each_process_looks_at_batches_of_its_own(world: int, ranks: dict[int, list[Outcome]]):
    outcome = ranks[world][0]["ddp some"]
    now = at({n: w for n, w in outcome["weights"].items() if n.startswith("task.network.")})
    whole, found = data(), []
    for place in (2, 4):  # two of five, evenly spaced
        for rank in range(world):
            part = {name: value[rank::world] for name, value in whole[order(1)[place]].items()}
            found.append(gradients(now, part))
    expected = {"step": 2 * BATCHES, **means(found)}
    assert outcome["readings"][1] == near(expected, rel=1e-10)


@pytest.mark.parametrize("world", WORLDS)
def test_gradients_and_weights_are_those_of_a_training_that_nobody_watches(
    world: int, ranks: dict[int, list[Outcome]]
):
    compared = 0
    for rank in ranks[world]:
        for kind, name in cases(world):
            case = (CASES if kind == "ddp" else SHARDED)[name]
            # Where a training goes on, DDP's buckets, and so its sums, are others for one step.
            if (case.method, case.accumulate, case.stop) == ("finetune", 1, None):
                for key in ("gradients", "weights"):
                    same(rank[f"{kind} {name}"][key], rank[f"{kind} unwatched"][key])
                compared += name != "unwatched"
        assert len(rank["ddp unwatched"]["gradients"]) == 2 * BATCHES
    assert compared >= 4 * world


@pytest.mark.parametrize("name, ends, more", [
    ("fixed", (5,), 0), ("windows", (2, 4, 5), 1), ("moving", (2, 4, 5), 0)
])  # fmt: skip
@pytest.mark.parametrize("world", WORLDS)
def test_one_vector_per_class_is_reduced_once_per_window(
    name: str, ends: tuple[int, ...], more: int, world: int, ranks: dict[int, list[Outcome]]
):
    """And one more for the held-out direction, if there is one; nothing at other batches."""
    size = sum(w.numel() for w in module_of(CASES[name], "ddp", 1).parameters())
    expected, start = [0] * BATCHES, 0
    for end in ends:
        labels = torch.cat([data()[n]["labels"] for n in order(0)[start:end]])
        expected[end - 1], start = (len(labels.unique()) + more) * size, end
    assert sum(expected) >= 3 * size
    for rank in ranks[world]:
        assert rank[f"ddp {name}"]["reduced"][:BATCHES] == expected


def test_shards_need_no_reduction_of_vectors(ranks: dict[int, list[Outcome]]):
    """Only of numbers: far fewer than there are weights."""
    size = sum(w.numel() for w in module_of(SHARDED["validation"], "fsdp2", 1).parameters())
    for rank in ranks[2]:
        for name in ("validation", "windows", "part"):
            assert 0 < max(rank[f"fsdp2 {name}"]["reduced"]) < 200 < size / 10


def test_moving_readings_of_sharded_weights_are_refused(ranks: dict[int, list[Outcome]]):
    for rank in ranks[2]:
        assert rank["refused"].startswith("accordance.theta=moving: weights are sharded; choose")


@pytest.mark.parametrize("world", WORLDS)
def test_some_classes_are_known_to_some_processes_only(world: int):
    """Else all this would say little."""
    known = [[set(b["labels"][rank::world].tolist()) for b in data()] for rank in range(world)]
    assert [2 in set.union(*mine) for mine in known] == [rank == 1 for rank in range(world)]
    assert any({0} == mine[1] != known[1][1] for mine in known)
