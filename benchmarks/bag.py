"""A victim whose answers can be told by hand, for attacks by two libraries: a bag of words.

It needs nothing but NumPy: each library runs in its own environment.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from zlib import crc32

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Case:
    """A text, the victim that knows its words, and words that may stand for them.

    Args:
        words: of the text, all different.
        label: what the victim says of it.
        weights: logits of each word, [classes]; other words weigh nothing.
        bias: logits of the empty text, [classes].
        near: for each word the nearest others and their cosines, the nearest first.
        stop_words: that stay.
    """

    words: list[str]
    label: int
    weights: dict[str, list[float]]
    bias: list[float]
    near: dict[str, list[tuple[str, float]]]
    stop_words: list[str]

    @property
    def text(self) -> str:
        """The words with single spaces."""
        return " ".join(self.words)

    def logits(self, text: str) -> np.ndarray:
        """Sum of the words' weights, [classes], float32."""
        known = [self.weights[w] for w in text.lower().split() if w in self.weights]
        return np.sum([self.bias, *known], axis=0).astype(np.float32)


def made(seed: int, classes: int, longest: int, letters: int) -> Case:
    """A random case; with words of one letter, which no misspelling of several letters changes."""
    random = Random(f"{seed} {classes} {longest} {letters}")
    known = list(LETTERS) if letters == 1 else _words(random, letters)
    weights = {w: [random.uniform(-0.5, 0.5) for _ in range(classes)] for w in known}
    bias = [random.uniform(-1, 1) for _ in range(classes)]
    words = random.sample(known, random.randint(2, longest))
    near = {}
    for word in known:
        others = random.sample([w for w in known if w != word], random.randint(0, 10))
        cosines = sorted((random.uniform(0.2, 1) for _ in others), reverse=True)
        near[word] = list(zip(others, cosines, strict=True))
    case = Case(words, 0, weights, bias, near, random.sample(known, 6))
    return Case(**{**asdict(case), "label": int(case.logits(case.text).argmax())})


def _words(random: Random, letters: int) -> list[str]:
    return ["".join(random.sample(LETTERS, letters)) for _ in range(30)]


def vector(text: str) -> np.ndarray:
    """A text's unit vector, float32: of its words' own, of lengths from 0.3 to 2."""
    total = np.zeros(12)
    for word in text.lower().split():
        stream = np.random.default_rng(crc32(word.encode()))
        total += stream.uniform(0.3, 2) * stream.normal(size=12)
    return (total / max(float(np.linalg.norm(total)), 1e-9)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """In float32."""
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def write(cases: dict[str, list[Case]], path: Path) -> None:
    """Cases by preset, to a file."""
    path.write_text(json.dumps({name: [asdict(c) for c in some] for name, some in cases.items()}))


def read(path: Path) -> dict[str, list[Case]]:
    """The way back."""
    found = json.loads(path.read_text())
    return {name: [Case(**case) for case in some] for name, some in found.items()}
