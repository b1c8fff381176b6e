"""Every bug against its definition, letter by letter; distances against recursion and laws."""

import gzip
import json
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from string import ascii_letters, ascii_lowercase

import pytest

from lit_adv.attacks import bugs

CONFUSABLES = Path(__file__).parents[2] / "../shared/lex/noise/confusables.json.gz"

ALL: list[Callable[[str], list[str]]] = [
    bugs.insert_space,
    bugs.delete,
    bugs.swap,
    bugs.look_alike,
    bugs.keyboard,
    bugs.swap_any,
    bugs.substitute,
    bugs.delete_any,
    bugs.insert_letter,
]
WORDS = [
    "ab",
    "aa",
    "abc",
    "aaaa",
    "good",
    "Movie",
    "FILM",
    "tedious",
    "don't",
    "3rd",
    "a b",
    "....",
]
WORDS += [
    "\u0444\u0438\u043b\u044c\u043c",
    "\u597d\u770b",
    "e\u0301t\u00e9",
    "\U0001f600ab",
    "\u00df\u00df",
]


def _without(word: str, i: int) -> str:
    return "".join(letter for j, letter in enumerate(word) if j != i)


def _exchanged(word: str, i: int) -> str:
    letters = list(word)
    letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def _with(word: str, i: int, letter: str) -> str:
    letters = list(word)
    letters[i] = letter
    return "".join(letters)


def _put(word: str, i: int, letter: str) -> str:
    letters = list(word)
    letters.insert(i, letter)
    return "".join(letters)


def _letters(like: str) -> str:
    return ascii_lowercase.upper() if like.isupper() else ascii_lowercase


# ---- laws for all --------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", ALL)
def test_results_come_once_are_never_the_word_and_the_same_every_time(bug: Callable):
    for word in WORDS:
        results = bug(word)
        assert len(set(results)) == len(results)
        assert word not in results
        assert bug(word) == results


@pytest.mark.parametrize("bug", ALL)
def test_of_no_letter_or_one_nothing_is_made(bug: Callable):
    for word in ("", "a", "I", "0", "\u597d", "\U0001f600"):
        assert bug(word) == []


@pytest.mark.parametrize("bug", ALL)
def test_a_result_is_one_edit_away_and_a_swap_at_most_two(bug: Callable):
    most = 2 if bug in (bugs.swap, bugs.swap_any) else 1
    for word in WORDS:
        assert all(1 <= bugs.edit_distance(word, result) <= most for result in bug(word))


# ---- each by its definition ----------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
def test_textbuggers(word: str):
    n = len(word)
    inner = range(1, n - 1)
    assert set(bugs.delete(word)) == {_without(word, i) for i in inner} - {word}
    swaps = {_exchanged(word, i) for i in inner if i + 1 in inner} if n > 4 else set()
    assert set(bugs.swap(word)) == swaps - {word}
    spaces = {f"{word[:i]} {word[i:]}" for i in range(1, n)} if n < 6 else set()
    assert set(bugs.insert_space(word)) == spaces
    for result in [*bugs.delete(word), *bugs.swap(word), *bugs.insert_space(word)]:
        assert (result[0], result[-1]) == (word[0], word[-1])


@pytest.mark.parametrize("word", WORDS)
def test_deepwordbugs(word: str):
    places = range(len(word))
    assert set(bugs.swap_any(word)) == {_exchanged(word, i) for i in places[:-1]} - {word}
    assert set(bugs.delete_any(word)) == {_without(word, i) for i in places}
    new = {_with(word, i, x) for i in places for x in _letters(word[i])}
    assert set(bugs.substitute(word)) == new - {word}
    put = {_put(word, i + 1, x) for i in places for x in _letters(word[i])}
    assert set(bugs.insert_letter(word)) == put | {_put(word, 0, x) for x in _letters(word[0])}


@pytest.mark.parametrize("word", WORDS)
def test_replaced_letters_are_those_of_the_tables(word: str):
    for bug, table in ((bugs.look_alike, bugs.LOOK_ALIKES), (bugs.keyboard, bugs.KEYS)):
        expected = {_with(word, i, x) for i, old in enumerate(word) for x in table.get(old, "")}
        assert set(bug(word)) == expected


def test_short_and_long_words():
    assert bugs.insert_space("seven7") == bugs.swap("four") == bugs.delete("ab") == []
    assert len(bugs.insert_space("fives")) == 4
    assert bugs.swap("fives") == ["fvies", "fievs"]
    assert bugs.delete("abc") == ["ac"]


# ---- tables --------------------------------------------------------------------------------------


def test_what_looks_alike_is_a_sign_or_confusable_by_unicode():
    if not CONFUSABLES.is_file():
        pytest.skip("no ../shared/lex: Unicode's confusables are not at hand")
    listed = json.loads(gzip.decompress(CONFUSABLES.read_bytes()))

    def alike(letter: str) -> set[str]:
        return {other["c"] for other in listed.get(letter, [])}

    for letter, others in bugs.LOOK_ALIKES.items():
        assert len(others) == len(set(others)) and letter not in others
        for other in others:
            if not other.isascii():  # I by way of l, which Unicode has for the same
                assert other in alike(letter) | (alike("l") if letter == "I" else set())
                assert other.isalpha()


def test_usual_signs_are_among_what_looks_alike():
    for letter, sign in zip("oOlaAssee1i", "001@4$53\u0435l1", strict=True):
        assert sign in bugs.LOOK_ALIKES[letter]


def test_keys_touch_both_ways_in_the_same_case():
    assert set(bugs.KEYS) == set(ascii_letters)
    for a, near in bugs.KEYS.items():
        assert a not in near
        assert all(a in bugs.KEYS[b] and a.isupper() == b.isupper() for b in near)
        assert bugs.KEYS[a.upper()] == near.upper()


@pytest.mark.parametrize(
    "letter, near", [("q", "wa"), ("g", "ftyhvb"), ("p", "ol"), ("z", "asx"), ("m", "njk")]
)
def test_keys_as_one_sees_them(letter: str, near: str):
    assert set(bugs.KEYS[letter]) == set(near)


# ---- chance --------------------------------------------------------------------------------------


def test_a_choice_depends_on_the_seed_alone():
    options = bugs.substitute("tedious")
    picks = [bugs.one(options, Random(f"{seed} 3 text")) for seed in range(50)]
    assert picks == [bugs.one(options, Random(f"{seed} 3 text")) for seed in range(50)]
    assert len(set(picks)) > 25 and set(picks) <= set(options)
    assert bugs.one([], Random(0)) is None
    assert bugs.one(["only"], Random(0)) == "only"


# ---- edit distance -------------------------------------------------------------------------------


@cache
def _reference_distance(a: str, b: str) -> int:
    """By the recursion of its definition."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return _reference_distance(a[1:], b[1:])
    pairs = ((a[1:], b), (a, b[1:]), (a[1:], b[1:]))
    return 1 + min(_reference_distance(*pair) for pair in pairs)


@pytest.mark.parametrize(
    "a, b, distance",
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("flaw", "lawn", 2),
        ("saturday", "sunday", 3),
        ("ab", "ba", 2),
        ("intention", "execution", 5),
        ("\u597d\u770b", "\u597d", 1),
    ],
)
def test_distances_known_by_hand(a: str, b: str, distance: int):
    assert bugs.edit_distance(a, b) == distance


def test_distances_are_those_of_the_recursion_and_a_metric():
    random = Random(0)
    words = ["".join(random.choices("ab", k=random.randint(0, 6))) for _ in range(14)]
    d = {pair: bugs.edit_distance(*pair) for pair in product(words, repeat=2)}
    for a, b in d:
        assert d[a, b] == d[b, a] == _reference_distance(a, b)
        assert (d[a, b] == 0) == (a == b)
        assert abs(len(a) - len(b)) <= d[a, b] <= max(len(a), len(b))
        assert all(d[a, b] <= d[a, c] + d[c, b] for c in words)
