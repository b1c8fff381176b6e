"""Sign changes of a series, where it is clear of zero; and the picture they are marked in."""

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from lit_adv.accordance import picture
from lit_adv.accordance.readings import Direction, Reading, SignWatch, changes

NAN = math.nan


def signs(values: list[float], error: float = 0.0, **options: Any) -> list[int]:
    """Places at which a change is told."""
    watch = SignWatch(**options)
    return [n for n, value in enumerate(values) if watch.changes(value, error)]


VALUES = [0.0, 0.5, 0.3, -0.2, NAN, -0.1, 0.0, 0.4, -0.4, -0.4, 0.1]


@pytest.mark.parametrize("direction, places", [
    ("any", [3, 7, 8, 10]), ("pos_to_neg", [3, 8]), ("neg_to_pos", [7, 10]),
])  # fmt: skip
def test_changes_are_told_in_their_direction(direction: Direction, places: list[int]):
    assert signs(VALUES, direction=direction) == places


def test_the_first_sign_is_no_change():
    assert signs([0.1]) == signs([-0.1]) == signs([0.0, -1.0]) == signs([]) == []


@pytest.mark.parametrize("hysteresis, places", [(0, [2, 4, 6, 8, 10]), (1, [6, 8]), (3, [])])
def test_only_values_clear_of_zero_have_a_sign(hysteresis: float, places: list[int]):
    """With a standard error of 0.15."""
    values = [0.5, 0.1, -0.1, -0.14, 0.14, 0.1, -0.2, -0.2, 0.4, 0.1, -0.1]
    assert signs(values, 0.15, hysteresis=hysteresis) == places


def test_exactly_at_the_threshold_is_not_clear():
    assert signs([1.0, -0.2, -0.21], 0.1, hysteresis=2.0) == [2]


def test_readings_that_lack_the_series_are_passed_over():
    values: list[dict[str, float]] = [{"all": 1.0}, {"cross": -1.0}, {"all": NAN}, {"all": -1.0}]
    readings = [Reading(n, n / 2, v) for n, v in enumerate(values)]
    assert [r.step for r in changes(readings, "all")] == [3]
    assert not [*changes(readings, "cross")] and not [*changes(readings, "validation")]
    readings[3] = Reading(3, 1.5, {"all": -1.0}, {"all": 2.0})
    assert [r.step for r in changes(readings, "all", hysteresis=0.4)] == [3]
    assert not [*changes(readings, "all", hysteresis=0.6)]


@pytest.mark.parametrize("errors, error", [({}, 0.0), ({"all": NAN}, 0.0), ({"all": 0.2}, 0.2)])
def test_an_unknown_error_is_none(errors: dict[str, float], error: float):
    assert Reading(1, 1.0, {"all": 1.0}, errors).error("all") == error


@pytest.mark.parametrize("options, said", [
    ({"direction": "up"}, "direction=up: choose one of neg_to_pos, pos_to_neg, any"),
    ({"hysteresis": -1}, "hysteresis=-1: needs to be at least 0"),
])  # fmt: skip
def test_what_is_no_watch_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        SignWatch(**options)


# ---- the picture ---------------------------------------------------------------------------------

READINGS = [
    Reading(n, n / 4, {"cross": 0.1 * n - 0.35, "validation": 0.4 - 0.1 * n}, {"cross": 0.05})
    for n in range(8)
]


@pytest.mark.parametrize("readings", [READINGS, READINGS[:1], [*READINGS, Reading(8, 2.0, {})]])
@pytest.mark.parametrize("validation", [[], [[3.0, 0.7], [7.0, 0.5]]])
@pytest.mark.parametrize("marked", ["cross", "validation", "all"])
def test_a_picture_is_drawn_of_whatever_there_is(
    readings: list[Reading], validation: list[list[float]], marked: str, tmp_path: Path
):
    path = tmp_path / "new" / "accordance.png"
    picture.draw(readings, validation, path, marked=marked)
    height, width, _ = imread(path).shape
    assert (width, height) == (1050, 630)


def colors(path: Path) -> set[tuple[int, ...]]:
    """Of its points."""
    points = (255 * imread(path)[..., :3]).round().astype(int).reshape(-1, 3)
    return {tuple(point) for point in points.tolist()}


def test_each_series_has_its_color(tmp_path: Path):
    path = tmp_path / "accordance.png"
    picture.draw(READINGS, [[3.0, 0.7], [7.0, 0.5]], path, marked="cross")
    there = colors(path)
    shown = {name: tuple(bytes.fromhex(style[0][1:])) in there
             for name, style in picture.STYLES.items()}  # fmt: skip
    assert shown == {"cross": True, "same": False, "all": False, "validation": True}
