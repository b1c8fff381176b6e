"""Bugs: what a slip of the finger, or a writer who dodges filters, makes of a word.

Of TextBugger (Li et al., NDSS 2019, arXiv:1812.05271): insert_space, delete, swap, look_alike and
keyboard. Of DeepWordBug (Gao et al. 2018, arXiv:1801.04354): swap_any, substitute, delete_any,
insert_letter.

Each gives all its results, once each, in the order of their places, and never the word itself;
nothing of a word of one letter. A letter is any character here (code point), of whatever script.
"""

from collections.abc import Iterable, Sequence
from random import Random
from string import ascii_lowercase

SHORT = 6
"""TextBugger puts spaces into words of fewer letters."""

LONG = 4
"""TextBugger swaps letters in words of more letters."""

# Digits and signs first, then Greek and Cyrillic letters that Unicode's confusables.txt holds for
# the same as the Latin one.
LOOK_ALIKES = {
    "a": "@4\u03b1\u0430",
    "b": "6",
    "c": "(\u03f2\u0441",
    "d": "\u0501",
    "e": "3\u0435",
    "g": "9",
    "h": "\u04bb",
    "i": "1!|\u03b9\u0456",
    "j": "\u03f3\u0458",
    "l": "1I|\u04c0",
    "o": "0\u03bf\u043e",
    "p": "\u03c1\u0440",
    "q": "9\u051b",
    "s": "$5\u0455",
    "t": "7+",
    "u": "\u03c5",
    "v": "\u03bd\u0475",
    "w": "\u051d",
    "x": "\u0445",
    "y": "\u03b3\u0443",
    "z": "2",
    "A": "@4\u0391\u0410",
    "B": "8\u0392\u0412",
    "C": "(\u03f9\u0421",
    "E": "3\u0395\u0415",
    "G": "6\u050c",
    "H": "\u0397\u041d",
    "I": "1l|\u0399\u0406",
    "J": "\u037f\u0408",
    "K": "\u039a\u041a",
    "M": "\u039c\u041c",
    "N": "\u039d",
    "O": "0\u039f\u041e",
    "P": "\u03a1\u0420",
    "S": "$5\u0405",
    "T": "7\u03a4\u0422",
    "V": "\u0474",
    "W": "\u051c",
    "X": "\u03a7\u0425",
    "Y": "\u03a5\u04ae",
    "Z": "2\u0396",
    "0": "oO",
    "1": "lI",
    "2": "Z",
    "3": "E\u0417",
    "5": "S",
    "6": "b",
    "8": "B",
    "9": "g",
}

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _keys() -> dict[str, str]:
    """The letters whose keys touch a letter's key; each row stands half a key to the right."""
    place = {letter: (x + y / 2, y) for y, row in enumerate(ROWS) for x, letter in enumerate(row)}
    lower = {
        a: "".join(
            b for b, (u, v) in place.items() if a != b and abs(u - x) <= 1 and abs(v - y) <= 1
        )
        for a, (x, y) in place.items()
    }
    return lower | {a.upper(): near.upper() for a, near in lower.items()}


KEYS = _keys()


def insert_space(word: str) -> list[str]:
    """A space between two letters of a short word.

    >>> insert_space("dull"), insert_space("tedious")
    (['d ull', 'du ll', 'dul l'], [])
    """
    if len(word) >= SHORT:
        return []
    return _once(word, (word[:i] + " " + word[i:] for i in range(1, len(word))))


def delete(word: str) -> list[str]:
    """Without one letter, neither the first nor the last."""
    return _deletions(word, range(1, len(word) - 1))


def swap(word: str) -> list[str]:
    """Two neighbouring letters of a long word exchanged, neither the first nor the last.

    >>> swap("tedious")
    ['tdeious', 'teidous', 'tedoius', 'tediuos']
    """
    return _swaps(word, range(1, len(word) - 2)) if len(word) > LONG else []


def look_alike(word: str) -> list[str]:
    """One letter replaced by a sign, or a letter of another script, that looks like it.

    >>> look_alike("two")[-3:-2], look_alike("kf")
    (['tw0'], [])
    """
    return _substitutions(word, [LOOK_ALIKES.get(letter, "") for letter in word])


def keyboard(word: str) -> list[str]:
    """One letter replaced by one whose key touches its own (QWERTY), in the same case.

    >>> keyboard("Aa")
    ['Qa', 'Wa', 'Sa', 'Za', 'Aq', 'Aw', 'As', 'Az']
    """
    return _substitutions(word, [KEYS.get(letter, "") for letter in word])


def swap_any(word: str) -> list[str]:
    """Any two neighbouring letters exchanged."""
    return _swaps(word, range(len(word) - 1))


def substitute(word: str) -> list[str]:
    """Any letter replaced by one of a to z, in its case."""
    return _substitutions(word, [_alphabet(letter) for letter in word])


def delete_any(word: str) -> list[str]:
    """Without any one letter."""
    return _deletions(word, range(len(word)))


def insert_letter(word: str) -> list[str]:
    """One of a to z put anywhere, the ends included, in the case of a letter beside it."""
    before = [word[:1], *word]
    places = range(len(word) + 1)
    return _once(word, (word[:i] + x + word[i:] for i in places for x in _alphabet(before[i])))


def one(options: Sequence[str], random: Random) -> str | None:
    """One of them by chance, None of none.

    Args:
        options: as given above.
        random: seeded by whatever the choice may depend on; a string does, on every machine alike.
    """
    return random.choice(options) if options else None


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's: the least number of letters inserted, deleted or replaced from a to b.

    >>> edit_distance("kitten", "sitting")
    3
    """
    if a == b:  # as nearly all words of a text are
        return 0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def _alphabet(beside: str) -> str:
    return ascii_lowercase.upper() if beside.isupper() else ascii_lowercase


def _deletions(word: str, places: Iterable[int]) -> list[str]:
    return _once(word, (word[:i] + word[i + 1 :] for i in places))


def _swaps(word: str, places: Iterable[int]) -> list[str]:
    return _once(word, (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places))


def _substitutions(word: str, new: Sequence[str]) -> list[str]:
    """Each letter replaced by each of the new ones for its place."""
    changed = (word[:i] + x + word[i + 1 :] for i, letters in enumerate(new) for x in letters)
    return _once(word, changed)


def _once(word: str, results: Iterable[str]) -> list[str]:
    if len(word) < 2:
        return []
    return [result for result in dict.fromkeys(results) if result != word]
