"""Parts of speech: a condition on candidates, and what a synonym is looked up as."""

from collections.abc import Sequence
from typing import NamedTuple

from lit_adv.attacks.engine import Request, Steps
from lit_adv.attacks.tagger import Tagger, universal
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words

OPEN = ("NOUN", "VERB", "ADJ", "ADV")
"""Parts of speech that WordNet knows."""

AS_ONE = {"NOUN", "VERB"}
"""TextFooler lets nouns and verbs stand for each other."""


class Exchanged(NamedTuple):
    """The tags at a place, with each of these words there."""

    words: tuple[str, ...]
    place: int
    candidates: tuple[str, ...]


class TaggerOracle:
    """Answers in universal tags, by nltk's perceptron."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def keys(self, items: Sequence[Exchanged]) -> list[Exchanged]:
        return list(items)

    def answer(self, keys: Sequence[Exchanged]) -> list[list[str]]:
        return [[universal(tag) for tag in self._tagger.exchanged(*key)] for key in keys]


def same(text: Words, place: int, candidates: Sequence[str], tools: Tools) -> Steps[Sequence[str]]:
    """The candidates that are the same part of speech as the word in its place.

    Without a tagger, all of them.
    """
    if "tagger" not in tools.oracles or not candidates:
        return candidates
    words = (text.words[place], *candidates)
    ((kind, *kinds),) = yield Request("tagger", [Exchanged(text.words, place, words)])
    return [word for word, other in zip(candidates, kinds, strict=True) if alike(kind, other)]


def alike(a: str, b: str) -> bool:
    """Whether two universal tags count as the same.

    >>> alike("ADJ", "ADJ"), alike("NOUN", "VERB"), alike("ADJ", "NOUN")
    (True, True, False)
    """
    return a == b or {a, b} <= AS_ONE


def kinds(text: Words) -> Steps[list[str]]:
    """The universal tag of every word."""
    asked = [Exchanged(text.words, i, (word,)) for i, word in enumerate(text.words)]
    answers = yield Request("tagger", asked)
    return [answer[0] for answer in answers]
