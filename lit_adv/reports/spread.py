"""What several seeds say: mean, sample standard deviation, paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from lit_adv.reports import student

Seed = TypeVar("Seed")


@dataclass(frozen=True)
class Spread:
    """Of values of several seeds.

    Args:
        mean: their mean.
        sd: sample standard deviation, with n - 1 in its denominator; None for a single seed.
        n: how many.
    """

    mean: float
    sd: float | None
    n: int

    @property
    def low(self) -> float:
        """A standard deviation below the mean."""
        return self.mean - (self.sd or 0)

    @property
    def high(self) -> float:
        """A standard deviation above it."""
        return self.mean + (self.sd or 0)


@dataclass(frozen=True)
class Difference:
    """Of pairs of values, one pair per seed.

    Args:
        mean: of the differences.
        half: of the width of the 95 % confidence interval for it; None for less than two pairs.
        n: pairs.
    """

    mean: float
    half: float | None
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """Of these values; None of none.

    >>> spread([1.0, 2.0, 3.0])
    Spread(mean=2.0, sd=1.0, n=3)
    """
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def difference(values: Mapping[Seed, float], baseline: Mapping[Seed, float]) -> Difference | None:
    """How far values lie above a baseline, over the seeds that both have; None where none is.

    The interval is mean +- t sd / sqrt(n), with the t of n - 1 degrees of freedom: it takes the
    differences of seeds to be normal, and seeds to be all that varies.

    Args:
        values: by seed.
        baseline: by seed.
    """
    found = spread([value - baseline[seed] for seed, value in values.items() if seed in baseline])
    if found is None:
        return None
    half = None
    if found.sd is not None:
        half = student.quantile(found.n - 1) * found.sd / math.sqrt(found.n)
    return Difference(found.mean, half, found.n)
