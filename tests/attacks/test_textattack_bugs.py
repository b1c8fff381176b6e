"""The bugs of TextBugger as TextAttack has them, told by their description for every word."""

from random import Random

import pytest

from lit_adv.attacks.textattack_bugs import GLYPHS, of_word

WORDS = [
    "a",
    "to",
    "two",
    "dull",
    "tedious",
    "Zoo",
    "ooo",
    "\u0444\u0438\u043b\u044c\u043c",
    "don't",
    "4ever",
    "",
]


def _kinds(word: str) -> list[set[str]]:
    """All that a space, a deletion and a swap may make of it."""
    n = len(word)
    letters = list(word)
    spaced = {"".join([*letters[:i], " ", *letters[i:]]) for i in range(n) if 1 <= i <= n - 2}
    deleted = {"".join(letters[:i] + letters[i + 1 :]) for i in range(n) if 1 <= i <= n - 2}
    swapped = set()
    for i in range(n):
        if i >= 1 and i + 1 <= n - 2:  # both letters are inner ones
            new = letters.copy()
            new[i], new[i + 1] = new[i + 1], new[i]
            swapped.add("".join(new))
    return [spaced, deleted, swapped]


@pytest.mark.parametrize("word", WORDS)
def test_one_of_each_kind_and_all_look_alikes(word: str):
    seen: list[set[str]] = [set(), set(), set()]
    alike = [word[:i] + GLYPHS[x] + word[i + 1 :] for i, x in enumerate(word) if x in GLYPHS]
    kinds = _kinds(word)
    for seed in range(200):
        found = of_word(word, Random(seed))
        assert word not in found
        cut = len(found) - len(alike)
        assert found[cut:] == alike
        # A swap of two equal letters is the word itself, and left out.
        possible = [kind for kind in kinds if kind]
        assert cut == len(possible) or (cut == len(possible) - 1 and word in kinds[2])
        for kind, each in zip([k for k in (0, 1, 2) if kinds[k]], found[:cut], strict=False):
            assert each in kinds[kind]
            seen[kind].add(each)
    assert seen == [kind - {word} for kind in kinds]


def test_by_chance_of_the_seed_alone():
    assert of_word("tedious", Random("7")) == of_word("tedious", Random("7"))
    assert len({tuple(of_word("tedious", Random(seed))) for seed in range(20)}) > 5


def test_every_small_letter_and_digit_has_another_character():
    assert set(GLYPHS) >= set("abcdefghijklmnopqrstuvwxyz0123456789")
    for letter, glyph in GLYPHS.items():
        assert len(glyph) == 1 and glyph != letter
