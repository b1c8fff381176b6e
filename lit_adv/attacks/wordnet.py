"""WordNet: synonyms of a word as a noun, a verb, an adjective or an adverb."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lit_adv.attacks import reading
from lit_adv.attacks.case import taken_over

KEY = "attack.resources.wordnet"

KINDS = {"n": "NOUN", "v": "VERB", "a": "ADJ", "s": "ADJ", "r": "ADV"}
"""WordNet's letters: a satellite of an adjective (s) is one too."""

FILES = {"noun": "NOUN", "verb": "VERB", "adj": "ADJ", "adv": "ADV"}

# Rules of detachment, from WordNet's morphy(7WN), in its order.
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "NOUN": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "VERB": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "ADJ": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "ADV": (),
}


class Sense(NamedTuple):
    """A word as one part of speech, and others of the same meaning, or meanings."""

    word: str
    pos: str
    members: list[str]


class WordNet:
    """Synonyms by base form and part of speech.

    Args:
        senses: the most frequent first; those of a word in lower case come before those of its
            namesake with a capital.
        irregular: base forms of (form, part of speech) that no rule finds.
    """

    def __init__(
        self, senses: Iterable[Sense], irregular: dict[tuple[str, str], list[str]] | None = None
    ) -> None:
        self._irregular = irregular or {}
        self._members: dict[tuple[str, str], list[str]] = {}
        for word, pos, members in sorted(
            senses, key=lambda sense: sense.word != sense.word.lower()
        ):
            self._members.setdefault((word.lower(), pos), []).extend(members)

    def synonyms(self, word: str, pos: str) -> list[str]:
        """Single words that mean the same, in base form, sense by sense; they take over capitals.

        Neither the word nor a base form of it is among them.

        Args:
            word: in any form, looked up in lower case.
            pos: NOUN, VERB, ADJ or ADV; of anything else there are none.
        """
        bases = self._bases(word.lower(), pos)
        members = (member for base in bases for member in self._members[base, pos])
        same = {word.lower(), *bases}
        new = (m for m in members if not {" ", "_"} & set(m) and m.lower() not in same)
        return list(dict.fromkeys(taken_over(member, word) for member in new))

    def _bases(self, form: str, pos: str) -> list[str]:
        """The form itself and what Morphy makes of it, as far as WordNet knows them."""
        bases = self._irregular.get((form, pos))
        if bases is None:  # a rule would make nonsense of most forms that are on the list
            rules = ENDINGS.get(pos, ())
            bases = [form.removesuffix(old) + new for old, new in rules if form.endswith(old)]
        return [base for base in dict.fromkeys([form, *bases]) if (base, pos) in self._members]


def load(path: str | Path) -> WordNet:
    """From Princeton's files, or from a list of synonyms.

    Args:
        path: a folder with data.noun, data.verb, data.adj and data.adv (index.* beside them tell
            the order of senses, *.exc irregular forms); or lines `word TAB n, v, a or r TAB
            synonym|synonym|...`, also .gz, with irregular forms, `form TAB base TAB n, v, a or r`,
            in a file beside it of the same name but for `irregular_forms` instead of `synonyms`.

    Raises:
        ValueError: a file is missing, cannot be read, or has another line than these.
    """
    path = Path(path)
    if path.is_dir():
        return WordNet(_princeton(path), dict(_exceptions(path)))
    beside = path.with_name(path.name.replace("synonyms", "irregular_forms"))
    known = beside != path and beside.exists()
    return WordNet(_rows(path), _irregular(beside) if known else None)


def _rows(path: Path) -> Iterator[Sense]:
    for word, pos, synonyms in _tabs(path, "word TAB n, v, a or r TAB synonym|synonym|..."):
        yield Sense(word, pos, synonyms.split("|"))


def _irregular(path: Path) -> dict[tuple[str, str], list[str]]:
    bases: dict[tuple[str, str], list[str]] = {}
    for form, base, pos in _tabs(path, "form TAB base TAB n, v, a or r"):
        bases.setdefault((form, pos), []).append(base)
    return bases


def _tabs(path: Path, wanted: str) -> Iterator[tuple[str, str, str]]:
    """Three columns, of which one is a part of speech."""
    at = wanted.split(" TAB ").index("n, v, a or r")
    for number, line in reading.lines(path, KEY):
        fields = line.split("\t")
        if len(fields) != 3 or not all(fields) or fields[at] not in KINDS:
            raise ValueError(f"{KEY}={path}: line {number}: wanted {wanted}")
        fields[at] = KINDS[fields[at]]
        first, second, third = fields
        yield first, second, third


def _princeton(folder: Path) -> Iterator[Sense]:
    """Of every word its synsets, in the order of index.*, or else as they come in data.*."""
    for name, pos in FILES.items():
        synsets = dict(_synsets(folder / f"data.{name}"))
        index = folder / f"index.{name}"
        if index.exists():
            for word, offsets in _index(index):
                if missing := [offset for offset in offsets if offset not in synsets]:
                    raise ValueError(f"{KEY}={index}: {word}: data.{name} has no {missing[0]}")
                yield Sense(word, pos, [m for offset in offsets for m in synsets[offset]])
        else:
            yield from (Sense(word, pos, words) for words in synsets.values() for word in words)


def _synsets(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Offset and words. A line: offset, file, kind, count (hexadecimal), count x (word, number)."""
    for number, line in reading.lines(path, KEY):
        if line.startswith("  "):  # the licence
            continue
        fields = line.partition("|")[0].split(" ")
        try:
            count = int(fields[3], 16)
        except (IndexError, ValueError):
            count = 0
        words = fields[4 : 4 + 2 * count : 2]
        if not count or len(words) < count or not all(words):
            raise ValueError(f"{KEY}={path}: line {number}: no synset of WordNet's data.*")
        yield fields[0], [word.split("(")[0] for word in words]  # galore(ip): its place, for adj


def _index(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Word and offsets. A line: word, kind, m, n, n x pointer, 2 numbers, m x offset."""
    for number, line in reading.lines(path, KEY):
        if line.startswith("  "):
            continue
        fields = line.split()
        counts = [int(field) for field in fields[2:4] if field.isdecimal()]
        if len(counts) < 2 or not counts[0] or len(fields) != 6 + sum(counts):
            raise ValueError(f"{KEY}={path}: line {number}: no entry of WordNet's index.*")
        yield fields[0], fields[-counts[0] :]


def _exceptions(folder: Path) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Form and bases: a line of *.exc."""
    for name, pos in FILES.items():
        path = folder / f"{name}.exc"
        if path.exists():
            for _, line in reading.lines(path, KEY):
                form, *bases = line.split() or [""]
                yield (form, pos), bases
