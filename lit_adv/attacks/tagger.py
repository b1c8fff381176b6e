"""Parts of speech, by the averaged perceptron of nltk and TextBlob (M. Honnibal, 2013).

Features, dictionary and greedy decoding from left to right are those of nltk's
`PerceptronTagger.tag` (3.10). A tag depends on the words up to two places away and on the two tags
before it, so that a word exchanged at i leaves the tags before i - 2 alone.
"""

import json
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lit_adv.attacks import reading

KEY = "attack.resources.tagger"
PARTS = ("weights", "tagdict", "classes")
WANTED = (
    "wanted nltk's averaged_perceptron_tagger_eng: the folder or zip with *.weights.json, "
    "*.tagdict.json and *.classes.json, or one .json or .json.gz with these three"
)

REMEMBERED = 1024
"""Sentences whose tags are kept."""

BEFORE, BEHIND = ("-START-", "-START2-"), ("-END-", "-END2-")

# en-ptb.map of Petrov, Das and McDonald, LREC 2012, arXiv:1104.2086
UNIVERSAL = {
    tag: universal
    for universal, tags in {
        "NOUN": "NN NNP NNPS NNS NN|NNS NN|SYM NN|VBG NP",
        "VERB": "MD VB VBD VBD|VBN VBG VBG|NN VBN VBP VBP|TO VBZ VP",
        "ADJ": "JJ JJR JJRJR JJS JJ|RB JJ|VBG",
        "ADV": "RB RBR RBS RB|RP RB|VBG WRB",
        "PRON": "PRP PRP$ PRP|VBP WP WP$",
        "DET": "DT EX PDT WDT",
        "ADP": "IN IN|RP",
        "NUM": "CD",
        "CONJ": "CC",
        "PRT": "POS PRT RP TO",
        ".": "! # $ '' ( ) , -LRB- -RRB- . : ? ``",
        "X": "CD|RB FW LS RN SYM UH WH",
    }.items()
    for tag in tags.split()
}


def universal(tag: str) -> str:
    """The universal tag of a Penn tag; X of an unknown one.

    >>> [universal(tag) for tag in ("NNS", "VBD", "JJR", "WRB", "?!")]
    ['NOUN', 'VERB', 'ADJ', 'ADV', 'X']
    """
    return UNIVERSAL.get(tag, "X")


class Tagger:
    """Penn tags of words in their sentence.

    Args:
        path: nltk's averaged_perceptron_tagger_eng, as a folder, as a zip, or its three parts
            (weights, tagdict, classes) in one .json or .json.gz. Pickles are not read.

    Raises:
        ValueError: it is none of these.
    """

    def __init__(self, path: str | Path) -> None:
        weights, self._dictionary, tags = _checked(Path(path))
        # Of tags with equal scores nltk takes the last of the alphabet; argmax takes the first.
        self._tags = sorted(tags, reverse=True)
        columns = {tag: i for i, tag in enumerate(self._tags)}
        self._rows = {feature: i for i, feature in enumerate(weights)}
        self._weights = np.zeros((len(weights) + 1, len(columns)))  # the last row, of no feature
        for row, by_tag in zip(self._weights, weights.values(), strict=False):
            for tag, weight in by_tag.items():
                row[columns[tag]] = weight
        self._remembered = lru_cache(REMEMBERED)(self._tagged)
        self._last: tuple[str, ...] = ()

    def tags(self, words: Sequence[str]) -> list[str]:
        """The tag of every word."""
        self._last = tuple(words)
        return list(self._remembered(self._last))

    def tag_at(self, words: Sequence[str], place: int) -> str:
        """`tags(words)[place]`, by three tags where the sentence last tagged begins alike."""
        place = range(len(words))[place]
        if tuple(words[:place]) != self._last[:place]:
            return self.tags(words)[place]
        return self._at(words, place, [words[place]], self._remembered(self._last))[0]

    def exchanged(self, words: Sequence[str], place: int, candidates: Sequence[str]) -> list[str]:
        """The tag at this place of the sentence with each candidate there instead of its word.

        Three tags are told per candidate; those of the sentence itself are remembered.
        """
        return self._at(words, range(len(words))[place], candidates, self.tags(words))

    def _at(
        self, words: Sequence[str], place: int, candidates: Sequence[str], tags: Sequence[str]
    ) -> list[str]:
        """The tag at this place, by those more than two places before it."""
        first, start = max(place - 2, 0), max(place - 4, 0)
        before = [*reversed(BEFORE), *tags[:first]][-2:]
        left, right = words[start:place], words[place + 1 : place + 3]
        sentences = [Sentence([*left, word, *right], first - start, before) for word in candidates]
        for _ in range(first, place + 1):
            self._tell(sentences)
        return [sentence.tags[-1] for sentence in sentences]

    def _tagged(self, words: tuple[str, ...]) -> list[str]:
        sentence = Sentence(words, 0, list(reversed(BEFORE)))
        for _ in words:
            self._tell([sentence])
        return sentence.tags[2:]

    def _tell(self, sentences: Sequence["Sentence"]) -> None:
        """One more tag of each: the dictionary's, or argmax_tag sum_feature w[feature, tag]."""
        told = [self._dictionary.get(sentence.word) for sentence in sentences]
        unknown = [sentence for sentence, tag in zip(sentences, told, strict=True) if not tag]
        nothing = len(self._rows)
        rows = [
            [self._rows.get(name, nothing) for name in sentence.features()] for sentence in unknown
        ]
        # Along the features numpy adds row by row, as nltk does: the same rounding, the same ties.
        best = iter(self._weights[rows].sum(1).argmax(1) if rows else ())
        for sentence, tag in zip(sentences, told, strict=True):
            sentence.tags.append(tag or self._tags[next(best)])


class Sentence:
    """Words, and the tags told so far.

    Args:
        words: the sentence, or as much of it as the tags to tell depend on.
        place: of the next word to tag.
        tags: of the two words before it.
    """

    def __init__(self, words: Sequence[str], place: int, tags: list[str]) -> None:
        self.tags = list(tags)
        self._words, self._skipped = words, place
        self._context = [*BEFORE, *map(_normal, words), *BEHIND]

    @property
    def _place(self) -> int:
        return self._skipped + len(self.tags) - 2

    @property
    def word(self) -> str:
        """The next word to tag."""
        return self._words[self._place]

    def features(self) -> tuple[str, ...]:
        """Of the next word to tag, in nltk's order."""
        word, (before2, before) = self.word, self.tags[-2:]
        w2, w1, this, v1, v2 = self._context[self._place : self._place + 5]
        return (
            "bias",
            f"i suffix {word[-3:]}",
            f"i pref1 {word[:1]}",
            f"i-1 tag {before}",
            f"i-2 tag {before2}",
            f"i tag+i-2 tag {before} {before2}",
            f"i word {this}",
            f"i-1 tag+i word {before} {this}",
            f"i-1 word {w1}",
            f"i-1 suffix {w1[-3:]}",
            f"i-2 word {w2}",
            f"i+1 word {v1}",
            f"i+1 suffix {v1[-3:]}",
            f"i+2 word {v2}",
        )


def _normal(word: str) -> str:
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    return "!DIGITS" if word[:1].isdigit() else word.lower()


def _checked(path: Path) -> tuple[dict[str, dict[str, float]], dict[str, str], list[str]]:
    weights, dictionary, tags = _parts(path)
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"{KEY}={path}: classes: wanted a list of tags")
    known = set(tags)
    if not isinstance(dictionary, dict) or not all(
        isinstance(tag, str) and tag in known for tag in dictionary.values()
    ):
        raise ValueError(f"{KEY}={path}: tagdict: wanted {{word: tag}}")
    if not isinstance(weights, dict) or not all(
        isinstance(row, dict)
        and row.keys() <= known
        and all(isinstance(weight, int | float) for weight in row.values())
        for row in weights.values()
    ):
        raise ValueError(f"{KEY}={path}: weights: wanted {{feature: {{tag: number}}}}")
    return weights, dictionary, sorted(known)


def _parts(path: Path) -> list[Any]:
    """Weights, dictionary and tags, as they are in the files."""
    if path.is_dir():
        files = [list(path.glob(f"*.{part}.json")) for part in PARTS]
        found = [[reading.as_json(file, KEY) for file in same] for same in files]
    elif path.suffix == ".zip":
        found = _zipped(path)
    else:
        parts = reading.as_json(path, KEY)
        found = [[parts[p]] if isinstance(parts, dict) and p in parts else [] for p in PARTS]
    if any(len(same) != 1 for same in found):
        raise ValueError(f"{KEY}={path}: {WANTED}")
    return [same[0] for same in found]


def _zipped(path: Path) -> list[list[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            files = [[name for name in names if name.endswith(f".{p}.json")] for p in PARTS]
            return [[json.loads(archive.read(name)) for name in same] for same in files]
    except (*reading.UNREADABLE, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{KEY}={path}: cannot be read: {reading.said(error)}") from error
