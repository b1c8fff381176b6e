"""Neighbours: words near a word, out of a table, out of vectors, or out of groups of synonyms."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from lit_adv.attacks import reading
from lit_adv.attacks.case import taken_over

KEY = "attack.resources.neighbours"

SLACK = 1e-5
"""More than float32 can be wrong about a cosine: nearer than that, only float64 tells an order."""

LARGEST = float(np.finfo(np.float32).max)

REMEMBERED = 1 << 15
"""Words whose neighbours are kept."""


class Neighbours(Protocol):
    """Words near a word."""

    @property
    def similarity_known(self) -> bool:
        """Whether there are cosines."""
        ...

    def near(self, word: str, k: int, min_cosine: float) -> list[str]:
        """At most k words, the nearest first, never the word itself; none of an unknown word.

        Args:
            word: looked up in lower case; the neighbours take over its capitals.
            k: how many.
            min_cosine: least cosine of the two vectors, where cosines are known.
        """
        ...

    def cosine(self, a: str, b: str) -> float | None:
        """Of the vectors of two words; None where one is unknown."""
        ...


def load(path: str | Path) -> "Table | Vectors":
    """What a file holds: `*.json` is a table, anything else vectors; both also as .gz.

    Raises:
        ValueError: the file cannot be read, or is not what its name says.
    """
    path = Path(path)
    table = path.name.removesuffix(".gz").endswith(".json")
    return Table(_listed(path)) if table else Vectors(*_vectors(path))


class Table:
    """Words listed by word; no cosines are known, so none can be asked for.

    Args:
        rows: for each word its neighbours, the nearest first. Of words that differ in case alone,
            the first counts.
    """

    similarity_known = False

    def __init__(self, rows: dict[str, list[str]]) -> None:
        self._rows: dict[str, list[str]] = {}
        for word, near in rows.items():
            self._rows.setdefault(word.lower(), near)

    def near(self, word: str, k: int, min_cosine: float = -1.0) -> list[str]:
        """As of any neighbours; `min_cosine` cannot be applied."""
        return _in_case(word, self._rows.get(word.lower(), ()))[:k]

    def cosine(self, a: str, b: str) -> float | None:
        """Not known."""
        return None


class Groups(Table):
    """Words of one group stand for each other; what consists of several words is left out.

    >>> Groups([("film", "movie"), ("was", "seemed", "was not")]).near("Was", 5)
    ['Seemed']
    """

    def __init__(self, groups: Iterable[Sequence[str]]) -> None:
        rows: dict[str, list[str]] = {}
        for group in groups:
            single = [word for word in group if " " not in word]
            for word in single:
                rows.setdefault(word.lower(), []).extend(single)
        super().__init__(rows)


class Vectors:
    """Words by the cosine of their vectors; of equal ones, the earlier word is the nearer.

    Args:
        words: what the rows stand for. Of words that differ in case alone, the first counts.
        rows: their vectors, [words, width]. A vector of zeros is near nothing.
    """

    similarity_known = True

    def __init__(self, words: Sequence[str], rows: np.ndarray) -> None:
        places: dict[str, int] = {}
        for place, word in enumerate(words):
            places.setdefault(word.lower(), place)
        kept = list(places.values())
        rows = rows if len(kept) == len(words) else rows[kept]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        self._unit = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
        self._words = [words[place] for place in kept]
        self._places = {word: place for place, word in enumerate(places)}
        self._nearest = lru_cache(REMEMBERED)(self._ranked)

    def near(self, word: str, k: int, min_cosine: float = -1.0) -> list[str]:
        """As of any neighbours."""
        place = self._places.get(word.lower())
        if place is None or k < 1:
            return []
        others = self._nearest(place, k)
        return _in_case(word, [self._words[i] for i, cosine in others if cosine >= min_cosine])

    def cosine(self, a: str, b: str) -> float | None:
        """As of any neighbours."""
        first, second = self._places.get(a.lower()), self._places.get(b.lower())
        if first is None or second is None:
            return None
        return float(self._cosines(first, np.array([second]))[0])

    def _ranked(self, place: int, k: int) -> list[tuple[int, float]]:
        """Places and cosines of the k nearest others."""
        rough = self._unit @ self._unit[place]
        rough[place] = -np.inf
        k = min(k, len(rough) - 1)
        if not k:
            return []
        least = np.partition(rough, -k)[-k]
        chosen = np.flatnonzero(rough >= least - SLACK)
        # Anew in float64: a product of the whole matrix may differ in the last bit between rows
        # that are equal, and from one number of threads to another.
        cosines = self._cosines(place, chosen)
        order = np.argsort(-cosines, kind="stable")[:k]
        return [(int(chosen[i]), float(cosines[i])) for i in order]

    def _cosines(self, place: int, others: np.ndarray) -> np.ndarray:
        rows = self._unit[others].astype(np.float64)
        return (rows * self._unit[place]).sum(1)


def _in_case(word: str, near: Iterable[str]) -> list[str]:
    lower = word.lower()
    return list(dict.fromkeys(taken_over(other, word) for other in near if other.lower() != lower))


def _listed(path: Path) -> dict[str, list[str]]:
    rows = reading.as_json(path, KEY)
    if not isinstance(rows, dict):
        raise ValueError(
            f"{KEY}={path}: wanted {{word: [neighbours]}}, not a {type(rows).__name__}"
        )
    for word, near in rows.items():
        if not isinstance(near, list) or not all(isinstance(other, str) for other in near):
            raise ValueError(f"{KEY}={path}: {word!r}: wanted a list of words, the nearest first")
    return rows


def _vectors(path: Path) -> tuple[list[str], np.ndarray]:
    words: list[str] = []
    rows: list[np.ndarray] = []
    width, announced, seen = 0, None, 0
    for number, line in reading.lines(path, KEY):
        fields = line.rstrip(" ").split(" ")
        if number == 1 and len(fields) == 2 and fields[0].isdecimal() and fields[1].isdecimal():
            announced, width = int(fields[0]), int(fields[1])
            continue
        seen += 1
        width = width or len(fields) - 1
        numbers = _numbers(fields[-width:]) if 0 < width < len(fields) else None
        more = fields[1:-width]
        if numbers is None or (more and _numbers(more) is not None):
            raise ValueError(
                f"{KEY}={path}: line {number}: wanted a word and {width or 'its'} numbers, with "
                "single spaces between"
            )
        if not more and fields[0].strip():  # what is no single word is left out
            words.append(fields[0])
            rows.append(numbers)
    if announced is not None and announced != seen:
        raise ValueError(f"{KEY}={path}: line 1: announces {announced} words, but there are {seen}")
    if not rows:
        raise ValueError(f"{KEY}={path}: line 1: no vectors")
    return words, np.stack(rows)


def _numbers(fields: Sequence[str]) -> np.ndarray | None:
    """As float32; None if one of them is no number, or too large to be one."""
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return None
    finite = all(abs(number) <= LARGEST for number in numbers)
    return np.array(numbers, dtype=np.float32) if finite else None
