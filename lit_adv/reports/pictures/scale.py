"""From figures to places along an axis, and the round figures to write there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True)
class Scale:
    """An axis.

    Args:
        low: its lower end.
        high: its upper end, above the lower one.
        log: by equal factors, not by equal differences; the lower end is above zero then.
    """

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the lower end, 1 at the upper one."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """About so many round figures between its ends.

        >>> Scale(0.0, 0.5).ticks(), Scale(1e-5, 1e-2, log=True).ticks()
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [1e-05, 0.0001, 0.001, 0.01])
        """
        if self.log:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            if len(decades) > 1:
                step = math.ceil(len(decades) / (count + 1))
                return [float(f"1e{decade}") for decade in decades[::step]]
        rough = (self.high - self.low) / count
        power = 10 ** math.floor(math.log10(rough))
        step = next(
            power * f for f in (1, 2, 5, 10) if power * f * (count + 0.5) >= self.high - self.low
        )
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def around(values: Sequence[float], log: bool = False, margin: float = 0.05) -> Scale:
    """The axis that holds these values, and a margin of so much of its length at both ends."""
    low, high = min(values), max(values)
    if log:
        factor = (high / low) ** margin if high > low else 2.0
        return Scale(low / factor, high * factor, log=True)
    rim = margin * (high - low) or margin * abs(high) or margin
    return Scale(low - rim, high + rim)


def factors(values: Sequence[float]) -> bool:
    """Whether values were chosen by equal factors: their median is nearer to the geometric mean.

    >>> factors([1e-5, 1e-4, 1e-3]), factors([0.01, 0.25, 0.5]), factors([0, 1, 10, 100])
    (True, False, False)
    """
    distinct = sorted(set(values))
    if len(distinct) < 3 or distinct[0] <= 0 or distinct[-1] < 10 * distinct[0]:
        return False
    middle = math.log(median(distinct))
    geometric, arithmetic = fmean(map(math.log, distinct)), math.log(fmean(distinct))
    return abs(middle - geometric) < abs(middle - arithmetic)


def tick(value: float) -> str:
    """A round figure as it stands at an axis.

    >>> tick(0.1), tick(20000.0), tick(1e-5)
    ('0.1', '20k', '1e-5')
    """
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}".replace("e-0", "e-")
