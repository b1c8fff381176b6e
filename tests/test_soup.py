"""Soups: the mean of weights, and which members a greedy one keeps, by brute force."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
import torch
from testbed import Tensors, same
from torch import Tensor

from lit_adv.soup import Weights, average, greedy


def members(count: int, seed: int = 0) -> list[Tensors]:
    """Weights of one architecture."""
    stream = torch.Generator().manual_seed(seed)
    return [
        {
            "matrix": torch.randn(3, 2, generator=stream),
            "half": torch.randn(4, generator=stream).bfloat16(),
            "steps": torch.tensor(7 + number),
        }
        for number in range(count)
    ]


def copied(weights: Sequence[Tensors]) -> list[Tensors]:
    return [{name: tensor.clone() for name, tensor in each.items()} for each in weights]


# ---- the mean ------------------------------------------------------------------------------------


def test_the_mean_is_taken_in_float64_and_kept_in_the_members_type():
    some = members(5)
    found = average(some)
    for name in ("matrix", "half"):
        exact = torch.stack([each[name].double() for each in some]).mean(0)
        same(found[name], exact.to(some[0][name].dtype))
    same(found["steps"], torch.tensor(7))
    large, small = torch.full((2,), 2.0**24), torch.ones(2)  # float32 would lose the ones
    same(
        average([{"w": large}, {"w": small}, {"w": small}])["w"], ((large.double() + 2) / 3).float()
    )


def test_one_member_is_its_own_mean_and_the_order_does_not_matter():
    some = members(4)
    same(average(some[:1]), some[0])
    first = average(some)
    other = average(some[::-1])
    torch.testing.assert_close(first["matrix"], other["matrix"])


def test_members_stay_as_they_are():
    some = members(3)
    before = copied(some)
    average(some)["matrix"].zero_()
    greedy(some, lambda weights: float(weights["matrix"].sum()))
    same(some, before)


@pytest.mark.parametrize(
    "other, said",
    [
        ({"w": torch.ones(3)}, r"checkpoint 2: .*: w is \(3,\), in the first checkpoint \(2,\)"),
        ({"v": torch.ones(2)}, r"v is \(2,\), in the first checkpoint absent"),
        ({}, r"w is absent, in the first checkpoint \(2,\)"),
    ],
)
def test_weights_of_another_model_are_refused(other: Tensors, said: str):
    with pytest.raises(ValueError, match=said):
        average([{"w": torch.ones(2)}, other])
    with pytest.raises(ValueError, match="checkpoint 3"):
        average([{"w": torch.ones(2)}, {"w": torch.ones(2)}, other])


# ---- greedy --------------------------------------------------------------------------------------


def near(goal: Tensor) -> Callable[[Weights], float]:
    """More is better: minus the distance of the weights from where they should be."""
    return lambda weights: -float((weights["w"] - goal).norm())


def by_definition(
    points: list[Tensor], score: Callable[[Weights], float]
) -> tuple[list[int], float]:
    """Algorithm 1 of the paper, in its own words."""
    order = sorted(range(len(points)), key=lambda i: score({"w": points[i]}), reverse=True)
    ingredients: list[int] = []
    best = -math.inf
    for i in order:
        mixed = torch.stack([points[j] for j in [*ingredients, i]]).double().mean(0).float()
        if score({"w": mixed}) >= best:
            ingredients, best = [*ingredients, i], score({"w": mixed})
    return ingredients, best


@pytest.mark.parametrize("seed", range(20))
def test_it_keeps_what_the_papers_algorithm_keeps(seed: int):
    stream = torch.Generator().manual_seed(seed)
    points = [torch.randn(3, generator=stream) for _ in range(7)]
    score = near(0.3 * torch.randn(3, generator=stream))
    soup, kept, scores = greedy([{"w": point} for point in points], score)
    wanted, best = by_definition(points, score)
    assert kept == wanted and score(soup) == best
    assert scores == [score({"w": point}) for point in points]
    same(soup, average([{"w": points[i]} for i in kept]))
    assert score(soup) >= max(scores)
    every = [sub for n in range(1, 8) for sub in combinations(range(7), n)]
    bound = max(score(average([{"w": points[i]} for i in sub])) for sub in every)
    assert score(soup) <= bound


def test_equals_join_and_the_worse_do_not():
    flat = [{"w": torch.zeros(1)}, {"w": torch.ones(1)}]
    assert greedy(flat, lambda weights: 0.5)[1] == [0, 1]
    soup, kept, _ = greedy(flat, lambda weights: float(weights["w"]))
    assert kept == [1] and soup["w"] == 1


def test_one_member_alone_is_the_soup():
    (only,) = members(1)
    soup, kept, scores = greedy([only], lambda weights: -2.0)
    assert kept == [0] and scores == [-2.0]
    same(soup, only)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_member_without_a_score_neither_leads_nor_joins(place: int):
    values = [1.0, 3.0]
    values.insert(place, math.nan)
    weights = [{"w": torch.tensor([value])} for value in values]
    soup, kept, _ = greedy(weights, lambda each: float(each["w"]))
    assert [values[i] for i in kept] == [3.0] and soup["w"] == 3
