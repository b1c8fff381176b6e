"""CountSketch: its map entry by entry, and how far its inner products stray over seeds."""

import copy
import math
from collections.abc import Callable
from itertools import combinations
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from lit_adv.functional.sketch import CountSketch

SIZE, LENGTH = 16, 101
SEEDS = 1000
PARTS = (1, 37, 16, 3, 1, 43)  # a list of odd lengths: together LENGTH

Vectors: TypeAlias = tuple[Tensor, Tensor]

closely = pytest.approx


def random(length: int = LENGTH, seed: int = 0) -> Tensor:
    """Of normal numbers."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(length, generator=stream, dtype=torch.float64)


def cut(vector: Tensor, lengths: tuple[int, ...] = PARTS) -> list[Tensor]:
    """In several tensors, not all of them flat."""
    parts = list(vector.split(list(lengths)))
    return [part.view(2, -1) if len(part) % 2 == 0 else part for part in parts]


def inner(a: Tensor, b: Tensor) -> float:
    """A number."""
    return float(a @ b)


# ---- the map -------------------------------------------------------------------------------------


def columns(sketch: CountSketch, whole: bool = True) -> Tensor:
    """R, [size, LENGTH]: where each coordinate goes."""
    units = torch.eye(LENGTH, dtype=torch.float64)
    return torch.stack([sketch(unit if whole else cut(unit)) for unit in units], 1)


@pytest.mark.parametrize("whole", [True, False])
def test_each_coordinate_goes_to_one_bucket_with_a_sign(whole: bool):
    matrix = columns(CountSketch(SIZE), whole)
    assert matrix.shape == (SIZE, LENGTH)
    assert (matrix.abs().sum(0) == 1).all() and (matrix.abs().amax(0) == 1).all()
    assert 0.3 < float((matrix.sum(0) > 0).double().mean()) < 0.7


def test_coordinates_of_one_run_never_meet_and_those_of_others_do_as_often_as_chance_has_it():
    seeds, run = 60, torch.arange(LENGTH) // SIZE
    other_run = run[:, None] != run
    met, agreed = torch.zeros(LENGTH, LENGTH), torch.zeros(LENGTH, LENGTH)
    for seed in range(seeds):
        matrix = columns(CountSketch(SIZE, seed)).float()
        buckets = matrix.abs().argmax(0)
        meet = buckets[:, None] == buckets
        assert not (meet & ~other_run & ~torch.eye(LENGTH).bool()).any()
        met += meet
        agreed += meet * matrix.sum(0)[:, None] * matrix.sum(0)
    # Pairs of runs meet or do not, in one of SIZE ways: 21 pairs, `seeds` times.
    deviation = math.sqrt((1 / SIZE) / (21 * seeds))
    assert float(met[other_run].mean() / seeds) == closely(1 / SIZE, abs=4 * deviation)
    # Of those that meet, one half has the same sign.
    pairs = int(met[other_run].sum()) / 2
    assert abs(float(agreed[other_run].sum())) / 2 < 4 * math.sqrt(pairs)


@pytest.mark.parametrize("whole", [True, False])
def test_it_is_linear(whole: bool):
    sketch, a, b = CountSketch(SIZE), random(), random(seed=1)
    of = sketch if whole else (lambda vector: sketch(cut(vector)))
    torch.testing.assert_close(of(3 * a - b), 3 * of(a) - of(b), rtol=0, atol=1e-12)
    torch.testing.assert_close(of(a), columns(sketch, whole) @ a, rtol=0, atol=1e-12)


def test_one_seed_is_one_map_and_others_are_others():
    vector = random()
    one, again = CountSketch(SIZE, 3), CountSketch(SIZE, 3)
    torch.testing.assert_close(one(vector), again(vector), rtol=0, atol=0)
    torch.testing.assert_close(one(vector), one(vector), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(one)(vector), one(vector), rtol=0, atol=0)
    maps = [columns(CountSketch(SIZE, seed)) for seed in range(5)]
    for a, b in combinations(maps, 2):
        assert float((a != b).any(0).double().mean()) > 0.5


def test_neither_the_vector_nor_anybodys_random_stream_is_touched():
    vector, before = cut(random()), torch.get_rng_state()
    kept = copy.deepcopy(vector)
    CountSketch(SIZE)(vector)
    torch.testing.assert_close(vector, kept, rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 7, SIZE - 1, SIZE])
def test_of_vectors_no_longer_than_the_sketch_all_inner_products_are_exact(length: int):
    a, b = random(length), random(length, seed=1)
    for seed in range(20):
        sketch = CountSketch(SIZE, seed)
        assert inner(sketch(a), sketch(b)) == closely(inner(a, b), rel=0, abs=1e-12)


@pytest.mark.parametrize("lengths", [(3, 4), (1, 1, 1), (5, 6, 5)])
def test_so_they_are_where_these_come_in_several_tensors(lengths: tuple[int, ...]):
    a, b = random(sum(lengths)), random(sum(lengths), seed=1)
    for seed in range(20):
        sketch = CountSketch(SIZE, seed)
        found = inner(sketch(cut(a, lengths)), sketch(cut(b, lengths)))
        assert found == closely(inner(a, b), rel=0, abs=1e-12)


def test_a_tensor_without_coordinates_is_none():
    """As a process has of a small weight that is dealt out to many."""
    vector, empty = random(20), torch.zeros(0, dtype=torch.float64)
    parts = list(vector.split([12, 8]))
    one, other = CountSketch(SIZE), CountSketch(SIZE)
    torch.testing.assert_close(other([parts[0], empty, parts[1]]), one(parts), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_buckets_are_of_float32_at_least(dtype: torch.dtype):
    vector = (random(5000) + 3).to(dtype)
    found, exact = CountSketch(SIZE)(vector), CountSketch(SIZE)(vector.double())
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)  # of hundreds of numbers


def test_what_it_cannot_map_is_refused():
    with pytest.raises(ValueError, match="at least"):
        CountSketch(0)
    sketch = CountSketch(SIZE)
    sketch(random())
    with pytest.raises(ValueError, match="other coordinates"):
        sketch(random(LENGTH + 1))


# ---- over seeds ----------------------------------------------------------------------------------


def strided(count: int) -> Tensor:
    """All of it in coordinates that would share a bucket were buckets dealt out in turn."""
    vector = torch.zeros(LENGTH, dtype=torch.float64)
    vector[2::SIZE][:count] = torch.arange(1, count + 1, dtype=torch.float64)
    return vector


ONES = torch.ones(LENGTH, dtype=torch.float64)
SIGNS = ONES.clone()
SIGNS[::2] = -1

VECTORS: dict[str, Vectors] = {
    "dense": (random(), random(seed=1)),
    "alike": (random(), random() + 0.3 * random(seed=1)),
    "one": (random(), random()),
    "strided": (strided(6), strided(6)),
    "strided_two": (strided(2), strided(2)),
    "strided_dense": (strided(6), random()),
    "constant": (ONES, ONES),
    "alternating": (ONES, SIGNS),
    "one_run": (ONES * (torch.arange(LENGTH) < SIZE), random()),
}


def variance(a: Tensor, b: Tensor) -> float:
    """Of `<Ra, Rb>`, over pairs of coordinates that can meet: those of different runs."""
    runs = list(zip(a.split(SIZE), b.split(SIZE), strict=True))
    pairs = ((one, other) for one in runs for other in runs if one is not other)
    return (
        sum(inner(a, a) * inner(d, d) + inner(a, b) * inner(c, d) for (a, b), (c, d) in pairs)
        / SIZE
    )


def bound(a: Tensor, b: Tensor) -> float:
    """The formula over all pairs."""
    squares = float((a.square() * b.square()).sum())
    return (inner(a, a) * inner(b, b) + inner(a, b) ** 2 - 2 * squares) / SIZE


def over_seeds(product: Callable[[int], float], seeds: int = SEEDS) -> tuple[float, float, float]:
    """Mean, variance, and the relative standard error of the variance."""
    found = torch.tensor([product(seed) for seed in range(seeds)], dtype=torch.float64)
    deviations = (found - found.mean()).square()
    return (
        float(found.mean()),
        float(deviations.mean()),
        float(deviations.std() / deviations.mean()) / math.sqrt(seeds),
    )


@pytest.mark.parametrize("name", list(VECTORS))
def test_inner_products_are_unbiased_and_vary_by_the_formula(name: str):
    a, b = VECTORS[name]

    def product(seed: int) -> float:
        sketch = CountSketch(SIZE, seed)
        return inner(sketch(a), sketch(b))

    mean, spread, error = over_seeds(product)
    assert error < 0.2
    assert mean == closely(inner(a, b), abs=4 * math.sqrt(spread / SEEDS))
    assert spread == closely(variance(a, b), rel=4 * error)
    assert spread < (1 + 4 * error) * bound(a, b)


def test_a_list_of_odd_lengths_is_as_good_as_one_vector():
    a, b = VECTORS["alike"]

    def product(seed: int) -> float:
        sketch = CountSketch(SIZE, seed)
        return inner(sketch(cut(a)), sketch(cut(b)))

    mean, spread, error = over_seeds(product)
    assert mean == closely(inner(a, b), abs=4 * math.sqrt(spread / SEEDS))
    assert spread < (1 + 4 * error) * bound(a, b)
    # Of few coordinates that meet never, whatever the tensors they are in.
    assert spread > (1 - 4 * error) * bound(a, b) / 2


def test_parts_of_vectors_that_seeds_of_their_own_map_add_up_to_a_sketch_of_the_whole():
    a, b = VECTORS["alike"]
    (a1, a2), (b1, b2) = a.split([50, 51]), b.split([50, 51])

    def product(seed: int) -> float:
        one, other = CountSketch(SIZE, 2 * seed), CountSketch(SIZE, 2 * seed + 1)
        return inner(one(a1) + other(a2), one(b1) + other(b2))

    mean, spread, _ = over_seeds(product)
    assert mean == closely(inner(a, b), abs=4 * math.sqrt(spread / SEEDS))
    assert spread < 1.25 * bound(a, b)


def test_the_mean_over_all_pairs_of_orthogonal_gradients_strays_by_root_two_over_m_over_n():
    n, length, seeds = 20, 100, 200
    units = torch.linalg.qr(random(length * n).view(length, n))[0].T
    means = []
    for seed in range(seeds):
        sketch = CountSketch(SIZE, seed)
        rows = torch.stack([sketch(unit) for unit in units])
        means.append((float(rows.sum(0).square().sum()) - float(rows.square().sum())) / (n * n - n))
    found = torch.tensor(means, dtype=torch.float64)
    deviation = math.sqrt(2 / SIZE) / n
    assert float(found.mean()) == closely(0, abs=4 * deviation / math.sqrt(seeds))
    assert float(found.std()) == closely(deviation, rel=0.2)
