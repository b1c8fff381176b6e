"""Splits: texts and labels of training, validation and test, before any tokenizer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np

Label: TypeAlias = int | float


@dataclass(kw_only=True)
class Split:
    """Rows of texts and their labels.

    Args:
        texts: of each row one, or the list that its kind says.
        pairs: of each row a second one; None = there is none.
        labels: of each row a class index, or a number; or the list that its kind says.
    """

    texts: list[Any]
    pairs: list[Any] | None = None
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def content(self) -> tuple[object, ...]:
        """What tells it from other rows."""
        return (self.texts, self.pairs, self.labels)

    def select(self, rows: Sequence[int]) -> "Split":
        """These rows, in this order."""
        pairs = None if self.pairs is None else [self.pairs[row] for row in rows]
        texts, labels = [self.texts[row] for row in rows], [self.labels[row] for row in rows]
        return Split(texts=texts, pairs=pairs, labels=labels)

    def cut(self, size: int, seed: int) -> tuple["Split", "Split"]:
        """Two parts drawn at random: all but `size` rows, and `size` rows."""
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        return self.select(sorted(order[size:])), self.select(sorted(order[:size]))


@dataclass(kw_only=True)
class Splits:
    """The three splits, and the names of the classes (None = numbers, or there are none).

    `kind` is what their rows teach; None = a label for each.
    """

    train: Split
    validation: Split
    test: Split
    label_names: list[str] | None
    kind: Any = None

    @property
    def digest(self) -> str:
        """The sha256 of all rows and the names of the classes."""
        whole = [self.label_names, *(split.content for _, split in self.items())]
        return sha256(json.dumps(whole).encode()).hexdigest()

    def items(self) -> list[tuple[str, Split]]:
        """The splits by name."""
        return [("train", self.train), ("validation", self.validation), ("test", self.test)]
