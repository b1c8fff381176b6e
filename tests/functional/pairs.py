"""Gradients of classes in batches, and means over all pairs of them, one pair after the other."""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations
from typing import Any, TypeAlias

import torch
from torch import Tensor

Parts: TypeAlias = list[Tensor]
Batches: TypeAlias = Sequence[Mapping[Any, Parts]]

KINDS = ("cross", "same", "all")


def random(
    count: int = 9,
    classes: int = 4,
    shapes: Sequence[tuple[int, ...]] = ((3, 4), (), (5,)),
    *,
    absent: float = 0.3,
    common: float = 0.5,
    seed: int = 0,
) -> list[dict[int, Parts]]:
    """Batches whose classes come in any order, or not at all.

    Args:
        count: batches.
        classes: at most so many in each.
        shapes: of the weights.
        absent: how often a class is.
        common: length of what all gradients have in common.
        seed: of all this.
    """
    stream = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=stream, dtype=torch.float64)

    shared = [common * normal(shape) for shape in shapes]
    made = []
    for _ in range(count):
        order = torch.randperm(classes, generator=stream).tolist()
        present = (torch.rand(classes, generator=stream) >= absent).tolist()
        made.append({c: [normal(s.shape) + s for s in shared] for c in order if present[c]})
    return made


def flat(parts: Parts) -> Tensor:
    """One vector, in float64."""
    return torch.cat([part.double().flatten() for part in parts])


def inner(one: Parts, other: Parts, normalize: str = "none") -> float:
    """Of two gradients, or of their directions."""
    a, b = flat(one), flat(other)
    return float(a @ b / (a.norm() * b.norm() if normalize == "cosine" else 1))


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def means(batches: Batches, normalize: str = "none") -> dict[str, Any]:
    """What `Accordance.compute` says; `matrix` by pairs of classes."""
    places = [(s, c, parts) for s, batch in enumerate(batches) for c, parts in batch.items()]
    values: dict[str, list[float]] = {name: [] for name in (*KINDS, "within")}
    matrix: dict[tuple[Hashable, Hashable], list[float]] = {}
    for (s, i, g), (t, j, h) in permutations(places, 2):
        value = inner(g, h, normalize)
        if s == t:
            values["within"].append(value)
            continue
        values["same" if i == j else "cross"].append(value)
        values["all"].append(value)
        matrix.setdefault((i, j), []).append(value)
    return {
        **{name: mean(found) for name, found in values.items()},
        "pairs": {name: len(found) for name, found in values.items()},
        "matrix": {pair: mean(found) for pair, found in matrix.items()},
        "batches": len(batches),
    }


def jackknife(batches: Batches, normalize: str = "none") -> dict[str, float]:
    """Standard errors, by leaving out every batch once."""
    n = len(batches)
    without = [means([*batches[:s], *batches[s + 1 :]], normalize) for s in range(n)]
    errors = {}
    for kind in KINDS:
        values = [outcome[kind] for outcome in without]
        squares = [(value - mean(values)) ** 2 for value in values]
        errors[kind] = math.sqrt((n - 1) / n * math.fsum(squares))
    return errors
