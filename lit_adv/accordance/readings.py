"""Readings: what gradient accordance was, step by step, and when its sign changed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lit_adv.ranges import at_least, one_of

SERIES = ("cross", "same", "all", "validation")
"""Between batches of other classes, of one class, of any; with held-out data."""

Direction = Literal["neg_to_pos", "pos_to_neg", "any"]
DIRECTIONS = ("neg_to_pos", "pos_to_neg", "any")


@dataclass(frozen=True)
class Reading:
    """Accordance of one window.

    Args:
        step: optimizer steps when it was taken.
        epoch: epochs begun, as a number: 1.5 is the middle of the second.
        values: by series; those that were not measured are missing.
        errors: their standard errors; NaN where there is none.
        seconds: what the measurement took.
    """

    step: int
    epoch: float
    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def error(self, series: str) -> float:
        """Standard error; 0 where it is unknown."""
        error = self.errors.get(series, 0.0)
        return error if math.isfinite(error) else 0.0


class SignWatch:
    """The sign of a series, which counts only where it is clear of zero, and its changes.

    Args:
        direction: `neg_to_pos`, `pos_to_neg` or `any`: the changes that are told.
        hysteresis: standard errors that a value needs to lie away from zero.

    Raises:
        ValueError: no such direction, or a negative hysteresis.
    """

    def __init__(self, direction: Direction = "any", hysteresis: float = 0.0) -> None:
        self.direction = one_of(DIRECTIONS, "direction", direction)
        self.hysteresis = at_least(0, "hysteresis", hysteresis)
        self.sign = 0

    def changes(self, value: float, error: float = 0.0) -> bool:
        """Whether this value is the first of the other sign."""
        if not abs(value) > self.hysteresis * error:  # also where it is NaN
            return False
        before, self.sign = self.sign, 1 if value > 0 else -1
        told = {"neg_to_pos": (-1, 1), "pos_to_neg": (1, -1)}.get(self.direction)
        change = (before, self.sign)
        return before != 0 and change[0] != change[1] and told in (None, change)


def changes(
    readings: Sequence[Reading], series: str, direction: Direction = "any", hysteresis: float = 0.0
) -> Iterator[Reading]:
    """The readings at which a series has changed its sign."""
    watch = SignWatch(direction, hysteresis)
    for reading in readings:
        if watch.changes(reading.values.get(series, math.nan), reading.error(series)):
            yield reading
