"""Which batches of a stretch are looked at, and when they are handed out."""

import math
from typing import Any

import pytest

from lit_adv.accordance.kept import Kept


def chosen(kept: Kept, batches: int, effective: int = 1) -> list[int]:
    """Numbers of the batches that are handed out."""
    found = []
    for number in range(batches):
        kept.offer(number)
        if (number + 1) % effective == 0 or number + 1 == batches:
            found += kept.close()
    return found


@pytest.mark.parametrize("wanted, length, expected", [
    (2, 8, [3, 7]),
    (4, 8, [1, 3, 5, 7]),
    (3, 8, [2, 5, 7]),
    (0.25, 8, [3, 7]),
    (0.3, 8, [2, 5, 7]),
    (0.01, 8, [3, 7]),
    (1.0, 4, [0, 1, 2, 3]),
    (9, 4, [0, 1, 2, 3]),
    (1, 2, [0, 1]),
    (1, 1, [0]),
    (3, math.inf, [0, 1, 2, 3, 4]),
])  # fmt: skip
@pytest.mark.parametrize("effective", [1, 3])
def test_evenly_spaced_batches_are_chosen_however_they_are_accumulated(
    wanted: float, length: float, expected: list[int], effective: int
):
    batches = 5 if math.isinf(length) else int(length)
    assert chosen(Kept(wanted, length), batches, effective) == expected


@pytest.mark.parametrize("wanted", range(2, 40))
def test_as_many_are_chosen_as_were_wanted_and_none_is_far_from_the_next(wanted: int):
    found = chosen(Kept(wanted, 41), 41)
    gaps = [b - a for a, b in zip([-1, *found], found, strict=False)]
    assert len(found) == wanted and found[-1] == 40
    assert set(gaps) <= {41 // wanted, 41 // wanted + 1}


def test_nothing_counts_before_its_effective_batch_is_whole():
    kept = Kept(1.0, 6)
    kept.offer("a")
    kept.offer("b")
    assert kept.position == 0
    assert kept.close() == ["a", "b"] and kept.position == 2
    assert kept.close() == [] and kept.position == 2


def test_it_goes_on_from_any_position():
    for position in range(8):
        kept = Kept(3, 8)
        kept.position = position
        found = []
        for number in range(position, 8):
            kept.offer(number)
            found += kept.close()
        assert found == [number for number in (2, 5, 7) if number >= position]


@pytest.mark.parametrize("wanted, length, said", [
    (0, 8, "batches=0: a number such as 8, or a share"),
    (-0.1, 8, "batches=-0.1: a number such as 8"),
    (2.0, 8, r"batches=2.0: .* a share in \(0, 1\]"),
    ("half", 8, "batches=half: a number"),
    (0.5, math.inf, "batches=0.5: a share of an epoch of unknown length; give a number"),
])  # fmt: skip
def test_what_is_no_number_of_batches_is_refused(wanted: Any, length: float, said: str):
    with pytest.raises(ValueError, match=said):
        Kept(wanted, length)
