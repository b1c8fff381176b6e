"""Ranges of hyperparameters: refused before training, with key, value and remedy."""

from typing import TypeVar

Number = TypeVar("Number", int, float)
Choice = TypeVar("Choice", bound=str)


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


def whole(bound: int, key: str, value: int, remedy: str = "") -> int:
    """The value, if it is a whole number of at least the bound.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key}={value}: needs to be a whole number")
    return at_least(bound, key, value, remedy)


def share(key: str, value: float) -> float:
    """The value, if it lies in [0, 1).

    Raises:
        ValueError: it does not.
    """
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{key}={value}: needs to lie in [0, 1)")
    return value


def one_of(choices: tuple[Choice, ...], key: str, value: Choice) -> Choice:
    """The value, if it is one of the choices.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{key}={value}: choose one of {', '.join(choices)}")
    return value
