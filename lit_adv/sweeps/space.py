"""The space of a search: values in Hydra's notation as Optuna's distributions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lit_adv.sweeps.points import Parse, listed, overrides, single, tidy


@dataclass(frozen=True)
class Space:
    """What a search may try.

    Args:
        fixed: overrides that all trials have.
        searched: key -> the values it may have.
    """

    fixed: tuple[str, ...]
    searched: Mapping[str, BaseDistribution]

    def point(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these values."""
        return [*self.fixed, *self.own(values)]

    def own(self, values: Mapping[str, Any]) -> list[str]:
        """Those of them that other trials have not."""
        return [f"{key}={self._text(key, values[key])}" for key in self.searched]

    def label(self, values: Mapping[str, Any]) -> str:
        """The values in few digits."""
        short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values.items()}
        return " ".join(f"{key}={short[key]}" for key in self.searched if key in short)

    def _text(self, key: str, value: Any) -> str:
        return tidy(repr(value)) if getattr(self.searched[key], "step", None) else str(value)


def space(params: Mapping[str, Any], arguments: Sequence[str], parse: Parse) -> Space:
    """The space that a sweep's configuration and command line describe.

    Args:
        params: key -> values in Hydra's notation, from a sweep's configuration.
        arguments: of the command line, which replace values of the same keys.
        parse: Hydra's parser of overrides.

    Raises:
        ValueError: nothing is searched, or values make no sense.
    """
    by_key = overrides(params, arguments, parse)
    searched = {k: distribution(k, each) for k, each in by_key.items() if each.is_sweep_override()}
    if not searched:
        raise ValueError(
            "hydra.sweeper.params: no key with several values, so there is nothing to search; on "
            "the command line: 'flood.b=interval(0,0.5)'"
        )
    fixed = (single(key, each) for key, each in by_key.items() if key not in searched)
    return Space(tuple(fixed), searched)


def distribution(key: str, override: Override) -> BaseDistribution:
    """The values of one key.

    Raises:
        ValueError: there are none, or an interval or its tag makes no sense.
    """
    swept, said = override.value(), f"{key}={override.get_value_string()}"
    tags, shuffled = getattr(swept, "tags", set()), getattr(swept, "shuffle", False)
    if tags - {"log"} or tags and not isinstance(swept, IntervalSweep):
        raise ValueError(f"{said}: the only tag that a search knows is tag(log, interval(...))")
    if shuffled:
        raise ValueError(f"{said}: a search has its own order; leave out shuffle")
    if isinstance(swept, IntervalSweep):
        return _interval(said, swept, log="log" in tags)
    if isinstance(swept, RangeSweep):
        return _range(said, swept)
    choices = tuple(dict.fromkeys(listed(key, override)))
    if not choices:
        raise ValueError(f"{said}: there is no such choice")
    return CategoricalDistribution(choices)


def _interval(said: str, swept: IntervalSweep, *, log: bool) -> BaseDistribution:
    low, high = swept.start, swept.end
    assert low is not None and high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{said}: an interval goes from the lesser number to the greater one")
    if log and low <= 0:
        raise ValueError(f"{said}: a logarithmic interval begins above 0")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _range(said: str, swept: RangeSweep) -> BaseDistribution:
    numbers = swept.range() if swept.step else range(0)
    values = numbers if isinstance(numbers, range) else [float(tidy(repr(x))) for x in numbers]
    if not values:
        raise ValueError(f"{said}: there is no number in this range")
    low, high = sorted((values[0], values[-1]))
    if isinstance(values, range):
        return IntDistribution(int(low), int(high), step=abs(values.step))
    return FloatDistribution(low, high, step=abs(swept.step))
