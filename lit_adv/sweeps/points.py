"""The points of a sweep: every combination of the values of each key, at each of some corners."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Sweep

Parse: TypeAlias = Callable[[list[str]], list[Override]]


def points(
    params: Mapping[str, Any],
    corners: Sequence[Mapping[str, Any]],
    arguments: Sequence[str],
    parse: Parse,
) -> list[list[str]]:
    """Overrides of every run, none twice, the last key changing fastest.

    Args:
        params: key -> values in Hydra's notation, from a sweep's configuration.
        corners: more of such mappings, of which each run has one; none = the parameters alone.
        arguments: of the command line, which replace values of the same keys.
        parse: Hydra's parser of overrides.

    Raises:
        ValueError: a key is swept over an interval, which has no end of values; a range stands in a
            list.
    """
    found: dict[tuple[str, ...], None] = {}
    for corner in corners or [{}]:
        by_key = overrides({**params, **corner}, arguments, parse)
        for point in product(*(list(_lines(key, each)) for key, each in by_key.items())):
            found[point] = None
    return [list(point) for point in found]


def overrides(
    params: Mapping[str, Any], arguments: Sequence[str], parse: Parse
) -> dict[str, Override]:
    """What is said of every key; the command line has the last word.

    Args:
        params: key -> value in Hydra's notation.
        arguments: of the command line.
        parse: Hydra's parser of overrides.
    """
    lines = [f"{key}={'null' if value is None else value}" for key, value in params.items()]
    return {each.get_key_element(): each for each in parse([*lines, *arguments])}


def single(key: str, override: Override) -> str:
    """An override that is no sweep, as a run's command line has it."""
    return f"{key}={override.get_value_element_as_str()}"


def listed(key: str, override: Override) -> Iterator[str]:
    """The values of a list, one by one.

    Raises:
        ValueError: a range stands in it.
    """
    swept = override.value()
    if isinstance(swept, ChoiceSweep) and any(isinstance(part, Sweep) for part in swept.list):
        raise ValueError(f"{key}: a list of single values, or one range(...), not both in one")
    return override.sweep_string_iterator()


def _lines(key: str, override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield single(key, override)
        return
    if not override.is_discrete_sweep():
        raise ValueError(
            f"{key}={override.get_value_string()}: a grid needs single values, such as "
            "range(0,0.5,0.1); intervals are for a search: sweep=optuna_b or hydra/sweeper=optuna"
        )
    swept = override.value()
    for value in listed(key, override):
        yield f"{key}={tidy(value) if isinstance(swept, RangeSweep) else value}"


def tidy(number: str) -> str:
    """A number without the rounding that many steps have added.

    >>> tidy("0.030000000000000002"), tidy("3")
    ('0.03', '3')
    """
    return number if number.lstrip("+-").isdecimal() else repr(float(f"{float(number):.12g}"))
