"""Flood levels that a run without flooding suggests, and a grid to sweep around them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from lit_adv import turn
from lit_adv.turn import Rows

ACCORDANCE = tuple(f"accordance/{pairs}" for pairs in ("all", "same", "cross", "validation"))
"""Metrics whose sign may change when a run starts to overfit: whether gradients agree."""


@dataclass(frozen=True)
class Suggestion:
    """One level, and what it was read from.

    Args:
        name: of the rule.
        event: what happened at the step.
        step: counted from 0, as in metrics.csv.
        epoch: that it belongs to, counted from 0.
        b: flood level, in the loss's unit.
    """

    name: str
    event: str
    step: int
    epoch: int
    b: float

    @property
    def command(self) -> str:
        """The line that trains with it."""
        return f"python train.py flood=fixed flood.b={self.b:.3g}"


@dataclass(frozen=True)
class Suggestions:
    """All levels that a run suggests.

    Args:
        found: one per rule that has an answer.
        lacking: why the other rules have none.
    """

    found: list[Suggestion]
    lacking: list[str]

    @property
    def sweep(self) -> str:
        """The line that trains with each level of a grid around all of them."""
        levels = grid([suggestion.b for suggestion in self.found])
        return f"python train.py -m flood=fixed flood.b={','.join(f'{b:.3g}' for b in levels)}"


def suggest(rows: Rows) -> Suggestions:
    """The levels that each rule reads from the metrics of a run.

    Raises:
        ValueError: no rule has an answer; the line says why the first has none.
    """
    rules: list[Callable[[Rows], list[Suggestion]]] = [at_turn]
    logged = [name for name in ACCORDANCE if turn.series(rows, name)]
    rules += [partial(at_change, name=name) for name in logged]

    found: list[Suggestion] = []
    lacking: list[str] = []
    for rule in rules:
        try:
            found += rule(rows)
        except ValueError as error:
            lacking.append(str(error))
    if not found:
        raise ValueError(lacking[0])
    return Suggestions(found, lacking)


def at_turn(rows: Rows) -> list[Suggestion]:
    """The training loss where the validation loss was lowest (`turn`), and half of it (`half`).

    Raises:
        ValueError: see `turn.find`.
    """
    found = turn.find(rows)
    event = f"val/loss lowest, {found.validation_loss:.4g}"
    return [
        Suggestion(name, event, found.step, found.epoch, share * found.training_loss)
        for name, share in (("half", 0.5), ("turn", 1.0))
    ]


def at_change(rows: Rows, name: str) -> list[Suggestion]:
    """The training loss of the window in which this metric first changed its sign.

    Raises:
        ValueError: it never did, or no training loss was logged in that window.
    """
    values = turn.series(rows, name)
    signed = [step for step in sorted(values) if values[step] != 0]
    for before, step in pairwise(signed):
        if (values[before] > 0) != (values[step] > 0):
            change = "+ to -" if values[before] > 0 else "- to +"
            b = turn.training_loss(rows, before, step)
            return [Suggestion(name, change, step, turn.epoch(rows, step), b)]
    raise ValueError(f"{name} never changed its sign")


def grid(levels: Sequence[float], count: int = 5) -> list[float]:
    """So many levels, evenly from half of the lowest to the highest.

    >>> grid([1.0, 2.0])
    [0.5, 0.875, 1.25, 1.625, 2.0]
    """
    low, high = min(levels) / 2, max(levels)
    return [low + i * (high - low) / (count - 1) for i in range(count)]
