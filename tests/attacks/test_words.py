"""Texts that come apart and together again, and their parts by definition."""

import re
import unicodedata
from random import Random

import pytest

from lit_adv.attacks.words import Words

KINDS = (
    "abcXYZ",
    "  \t\n\u00a0\u3000",
    ".,!?'\"-_*@()",
    "\u0300\u0301\u0308\u20dd",  # combining
    "\u597d\u770b\u7684\u3002\uff01",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u064e\u0651",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e2a\u0e27\u0e31",
    "\U0001f600\U0001f468\u200d\U0001f469\ufe0f\U0001f1e9",
    "0123\u00bd\u0660",
    "\x00\x1f\u200b\ufeff\ue000",
)


def _texts(count: int = 300) -> list[str]:
    random = Random(0)
    known = ["", " ", "...", "a", "word", " a ", "don't", "e\u0301", "A don't-miss film, really!"]
    for i in range(count):
        letters = "".join(random.sample(KINDS, random.randint(1, 4)))
        known.append("".join(random.choices(letters, k=random.randint(0, 30))))
        if i % 3 == 0:  # anywhere in Unicode, but for surrogates
            points = [random.choice((random.randrange(0xD800), random.randrange(0xE000, 0x110000)))]
            points += [random.randrange(0xD800) for _ in range(20)]
            known.append("".join(map(chr, points)))
    return known


TEXTS = _texts()


def test_a_text_comes_together_again():
    for text in TEXTS:
        words = Words.of(text)
        assert words.text == text == words.item
        assert len(words.gaps) == len(words.words) + 1 == len(words) + 1
        assert Words.of(text, first="one").item == ("one", text)


def test_what_stands_between_words_holds_no_letter():
    for text in TEXTS:
        for gap in Words.of(text).gaps:
            assert not any(letter.isalnum() for letter in gap), text
        for word in Words.of(text).words:
            assert word[0].isalnum() and not re.search(r"\s", word)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ()),
        ("?! -- '", ()),
        ("don't", ("don't",)),
        ("don\u2019t f*ck user@host well-known a_b", None),
        ("'quoted' -dash- under_", ("quoted", "dash", "under")),
        ("3.5 U.S.", ("3", "5", "U", "S")),
        ("caf\u00e9", ("caf\u00e9",)),
        ("cafe\u0301s", ("cafe\u0301s",)),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948", None),
        ("\u597d\u770b ok", ("\u597d", "\u770b", "ok")),
        ("\u597dok\u770b", ("\u597d", "ok", "\u770b")),
        ("\u30ab\u30bf\u30ab\u30ca\u3068", ("\u30ab\u30bf\u30ab\u30ca\u3068",)),
        ("\u043c\u0438\u0440 \u05e9\u05dc\u05d5\u05dd", None),
        ("a\U0001f600b", ("a", "b")),
        ("\u0301a", ("a",)),
    ],
)
def test_words_are_runs_of_letters_and_single_ideographs(text: str, words: tuple[str, ...] | None):
    assert Words.of(text).words == (tuple(text.split()) if words is None else words)


def test_composed_and_decomposed_letters_make_the_same_words():
    text = "L'\u00e9t\u00e9 \u00e0 la fa\u00e7ade: \u1eaf\u1ed3 \u01d6!"
    apart = Words.of(unicodedata.normalize("NFD", text))
    together = Words.of(text)
    assert [unicodedata.normalize("NFC", word) for word in apart.words] == list(together.words)


def test_exchanged_and_changed_are_what_they_say():
    random = Random(1)
    for text in TEXTS:
        words = new = Words.of(text)
        places = sorted(random.sample(range(len(words)), min(3, len(words))))
        for place in places:
            new = new.exchange(place, words.words[place] + "x y")
        assert new.changed(words) == places == words.changed(new)
        assert new.gaps == words.gaps and words.text == text
        parts = [part for pair in zip(new.gaps, new.words, strict=False) for part in pair]
        assert new.text == "".join([*parts, new.gaps[-1]])


def test_segments_add_up_and_mark_what_is_not_common():
    random = Random(2)
    for text in TEXTS:
        old = new = Words.of(text)
        for place in random.sample(range(len(old)), min(3, len(old))):
            new = new.exchange(place, random.choice(("other", old.words[place])))
        for one, other in ((old, new), (new, old)):
            pieces = one.segments(other)
            assert "".join(piece for piece, _ in pieces) == one.text
            assert all(piece for piece, _ in pieces)
            odd = [piece for piece, marked in pieces if marked]
            assert odd == [one.words[i] for i in one.changed(other)]
        common = [
            "".join(p for p, marked in w.segments(v) if not marked)
            for w, v in ((old, new), (new, old))
        ]
        assert common[0] == common[1]


def _squeezed(text: str) -> str:
    return text.replace(" ", "")


def test_without_takes_a_word_and_at_most_one_space():
    for text in TEXTS:
        words = Words.of(text)
        for i in range(len(words)):
            less = words.without(i)
            assert less.words == words.words[:i] + words.words[i + 1 :]
            pieces = [p for pair in zip(words.gaps, words.words, strict=False) for p in pair]
            pieces[2 * i + 1] = ""
            plain = "".join([*pieces, words.gaps[-1]])
            assert _squeezed(less.text) == _squeezed(plain)
            assert len(plain) - len(less.text) in (0, 1)


def test_without_leaves_one_space_between_words_and_none_at_the_ends():
    text = "one two, (three four) five"
    expected = {
        0: "two, (three four) five",
        1: "one , (three four) five",
        2: "one two, ( four) five",
        3: "one two, (three ) five",
        4: "one two, (three four)",
    }
    assert {i: Words.of(text).without(i).text for i in range(5)} == expected
    assert Words.of("one two.").without(1).text == "one ."
    assert Words.of("one").without(0).text == ""
    assert Words.of("\u597d \u770b\u7684").without(1).text == "\u597d \u7684"
    plain = ["w0", "w1", "w2", "w3"]
    for i in range(4):
        assert Words.of(" ".join(plain)).without(i).text == " ".join(plain[:i] + plain[i + 1 :])


def test_parts_are_words_and_what_stands_between_them():
    for text in TEXTS[:120]:
        words = Words.of(text)
        for start in range(len(words) + 1):
            for stop in range(start, len(words) + 1):
                part = words.part(start, stop)
                assert part.words == words.words[start:stop]
                assert len(part.gaps) == len(part) + 1
                assert part.text in text and part.text == part.text.rstrip()
                if start < stop:
                    assert part.text.startswith(words.words[start])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 15])
def test_windows_hold_so_many_words_around_the_place_if_there_are_so_many(size: int):
    for n in range(1, 20):
        words = Words.of(", ".join(f"w{i}" for i in range(n)))
        for place in range(n):
            found = [int(word[1:]) for word in words.window(place, size).split(" ")]
            assert found == list(range(found[0], found[0] + min(size, n)))
            assert place in found
            before, behind = place - found[0], found[-1] - place
            if found[0] > 0 and found[-1] < n - 1:  # in the middle where it does not hit an end
                assert before == (size - 1) // 2 and behind == size // 2
