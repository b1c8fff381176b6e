"""A candidate takes over the capitals of the word it stands for."""

import pytest

from lit_adv.attacks.case import taken_over


@pytest.mark.parametrize(
    "candidate, word, expected",
    [
        ("film", "movie", "film"),
        ("film", "Movie", "Film"),
        ("film", "MOVIE", "FILM"),
        ("film", "mOVIE", "film"),
        ("McDonald", "burger", "McDonald"),
        ("mcDonald", "Burger", "McDonald"),
        ("one", "I", "One"),
        ("film", "", "film"),
        ("", "Movie", ""),
        ("film", "1999", "film"),
        ("film", "U.S.", "FILM"),
        ("\u00fcbel", "\u00d6de", "\u00dcbel"),
        ("\u597d", "\u574f", "\u597d"),
    ],
)
def test_capitals_are_taken_over(candidate: str, word: str, expected: str):
    assert taken_over(candidate, word) == expected
