"""Hand-made victims and other oracles, whose answers can be told without them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from zlib import crc32

import numpy as np

from lit_adv.attacks.engine import Engine, Oracle
from lit_adv.attacks.masked_lm import Propose
from lit_adv.attacks.speech import Exchanged
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.trial import Example, Recipe, trial
from lit_adv.attacks.words import Words

Item = str | tuple[str, str]

# ---- oracles -------------------------------------------------------------------------------------


class Answering:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def keys(self, items: Sequence[Any]) -> list[Any]:
        return list(items)

    def answer(self, keys: Sequence[Any]) -> list[Any]:
        self.asked += keys
        return [self.one(key) for key in keys]

    def one(self, key: Any) -> Any:
        """The answer to this question."""
        raise NotImplementedError


class Linear(Answering):
    """A bag of words: logits are the sum of the words' weights; unknown words weigh nothing.

    Args:
        weights: of words in lower case, [classes].
        bias: logits of the empty text, [classes].
    """

    def __init__(self, weights: Mapping[str, Sequence[float]], bias: Sequence[float]) -> None:
        super().__init__()
        self.weights, self.bias = weights, bias

    def logits(self, item: Item) -> np.ndarray:
        """In float64; both texts of a pair count."""
        both = item if isinstance(item, str) else " ".join(item)
        found = (self.weights.get(w) for w in re.split(r"[\s.,!?]+", both.lower()))
        return np.sum([self.bias, *(w for w in found if w is not None)], axis=0)

    def one(self, key: Item) -> np.ndarray:
        return self.logits(key).astype(np.float32)

    def probabilities(self, words: Sequence[str], temperature: float = 1.0) -> np.ndarray:
        """Of the classes, in float64."""
        z = np.exp(self.logits(" ".join(words)) / temperature)
        return z / z.sum()


class Constant(Answering):
    """Says the same of every text."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = logits

    def one(self, key: Item) -> np.ndarray:
        return np.array(self.logits, dtype=np.float32)


class Proposing(Answering):
    """A masked language model that proposes for a word what a table says."""

    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.table = table

    def one(self, key: Propose) -> list[list[str]]:
        return [list(self.table.get(key.words[place], ()))[: key.k] for place in key.places]


class Encoding(Answering):
    """Unit vectors: the sum of one random vector per word, or what a table says of the text."""

    def __init__(self, table: Mapping[str, Sequence[float]] | None = None, width: int = 12) -> None:
        super().__init__()
        self.table, self.width = table, width

    def one(self, key: str) -> np.ndarray:
        if self.table is not None:
            return np.array(self.table[key], dtype=np.float32)
        streams = [np.random.default_rng(crc32(word.encode())) for word in key.split()]
        total = np.sum([stream.normal(size=self.width) for stream in streams], axis=0)
        return (total / np.linalg.norm(total)).astype(np.float32)


class Tagging(Answering):
    """Tags words by a table, wherever they stand."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        super().__init__()
        self.tags = tags

    def one(self, key: Exchanged) -> list[str]:
        return [self.tags[word] for word in key.candidates]


class NearTable:
    """Neighbours and their cosines, the nearest first."""

    similarity_known = True

    def __init__(self, table: Mapping[str, Sequence[tuple[str, float]]]) -> None:
        self.table = table
        self.asked: list[str] = []

    def near(self, word: str, k: int, min_cosine: float) -> list[str]:
        self.asked.append(word)
        return [other for other, cosine in self.table.get(word, ())[:k] if cosine >= min_cosine]

    def cosine(self, a: str, b: str) -> float | None:
        return dict(self.table.get(a, ())).get(b)


class SynonymTable:
    """Synonyms by word and part of speech."""

    def __init__(self, table: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self.table = table

    def synonyms(self, word: str, pos: str) -> list[str]:
        return list(self.table.get((word, pos), ()))


# ---- attacks -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Scene:
    """A victim and what an attack may use.

    Args:
        victim: as attacks see it.
        exact: in full precision; None = it is the same.
        near: neighbours.
        synonyms: by part of speech.
        others: further oracles: `masked_lm`, `encoder`, `tagger`.
        stop_words: never changed.
        concurrency: of the engine.
    """

    victim: Any
    exact: Any = None
    near: NearTable | None = None
    synonyms: SynonymTable | None = None
    others: Mapping[str, Oracle] = field(default_factory=dict)
    stop_words: frozenset[str] = frozenset()
    concurrency: int = 256

    def attack(
        self, recipe: Recipe, *texts: str | Words, label: int = 0, temperature: float = 1.0
    ) -> list[dict[str, Any]]:
        """What comes out for each text, in the texts' order."""
        oracles = {**self.others, "victim": self.victim, "exact": self.exact or self.victim}
        tools = Tools(
            neighbours=self.near,
            wordnet=self.synonyms,
            stop_words=self.stop_words,
            oracles=frozenset(oracles),
        )
        self.engine = Engine(oracles, concurrency=self.concurrency)
        trials = []
        for i, text in enumerate(texts):
            words = Words.of(text) if isinstance(text, str) else text
            example = Example(index=i, text=words, label=label)
            trials.append((i, trial(example, recipe, tools, temperature)))
        outcomes = dict(self.engine.run(trials))
        for outcome in outcomes.values():
            if isinstance(outcome, Exception):
                raise outcome
        return [dict(outcomes[i]) for i in range(len(texts))]  # pyright: ignore


# ---- random cases --------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnop"
"""Words that no bug changes: of one letter each."""


@dataclass
class Case:
    """A text of one-letter words, the victim that knows them, and words that may stand for them."""

    words: list[str]
    label: int
    victim: Linear
    near: dict[str, list[tuple[str, float]]]
    stop_words: frozenset[str]

    @property
    def text(self) -> str:
        """With single spaces."""
        return " ".join(self.words)


def case(seed: int, classes: int = 2, longest: int = 9, scale: float = 1.0) -> Case:
    """A random text that the victim takes for what it is.

    For two classes, weights are multiples of 1/16 and words come again, so that much is equal, and
    equal exactly; the prediction never is a tie. For more, no two numbers are equal.

    Args:
        seed: of all this.
        classes: of the victim.
        longest: most words.
        scale: of the weights, a power of two.
    """
    random = Random(seed)
    if classes == 2:
        weights = {w: [0.0, scale * random.randint(-16, 16) / 16] for w in LETTERS}
        bias = [0.0, scale * (random.choice([-2, -1, 1, 2]) / 2 + 1 / 32)]
        words = random.choices(LETTERS, k=random.randint(1, longest))
    else:
        weights = {w: [scale * random.uniform(-1, 1) for _ in range(classes)] for w in LETTERS}
        bias = [random.uniform(-1, 1) for _ in range(classes)]
        words = random.sample(LETTERS, random.randint(1, longest))
    victim = Linear(weights, bias)
    near = {}
    for word in LETTERS:
        others = random.sample([w for w in LETTERS if w != word], random.randint(0, 5))
        cosines = sorted((random.uniform(0.2, 1) for _ in others), reverse=True)
        near[word] = list(zip(others, cosines, strict=True))
    label = int(victim.logits(" ".join(words)).argmax())
    stop_words = frozenset(random.sample(LETTERS, 3))
    return Case(words, label, victim, near, stop_words)
