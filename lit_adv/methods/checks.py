"""Ranges of hyperparameters: refused before training, with key, value and remedy."""

from typing import TypeVar

Number = TypeVar("Number", int, float)


def at_least(bound: Number, key: str, value: Number, remedy: str = "") -> Number:
    """The value, if it is a number of at least the bound.

    >>> at_least(1, "method.steps", 3)
    3

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= bound:
        raise ValueError(f"{key}={value}: needs to be at least {bound}{remedy and '; ' + remedy}")
    return value


def one_of(choices: tuple[str, ...], key: str, value: str) -> str:
    """The value, if it is one of the choices.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{key}={value}: choose one of {', '.join(choices)}")
    return value
