"""Similarity of sentences, as a condition on what an attack may write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lit_adv.attacks.engine import Request, Steps
from lit_adv.attacks.words import Words
from lit_adv.ranges import at_least, one_of, whole


@dataclass(kw_only=True, frozen=True)
class Similarity:
    """How alike a text has to stay, by the cosine of sentence vectors u, v.

    angular: 1 - arccos(cos(u, v)) / pi. TextFooler's code asks for 1 - arccos(cos) >= 0.5, which is
    0.840845 here.

    Args:
        threshold: least similarity.
        metric: angular, or the cosine itself.
        window: words around the changed one that are compared; None = the whole texts.
        against: compare with the text as it was before this change, or with the original.
        short: least similarity of texts shorter than the window; None = the threshold; `pass` =
            they are not looked at.

    Raises:
        ValueError: a value out of its range.
    """

    threshold: float
    metric: Literal["angular", "cosine"] = "angular"
    window: int | None = None
    against: Literal["previous", "original"] = "original"
    short: float | Literal["pass"] | None = None

    def __post_init__(self) -> None:
        at_least(-1.0, "similarity.threshold", self.threshold)
        one_of(("angular", "cosine"), "similarity.metric", self.metric)
        one_of(("previous", "original"), "similarity.against", self.against)
        if isinstance(self.short, str):
            one_of(("pass",), "similarity.short", self.short)
        if self.window is not None:
            whole(1, "similarity.window", self.window)

    def looks(self, text: Words) -> bool:
        """Whether texts as long as this one are compared."""
        return not (self.short == "pass" and self._short(text))

    def least(self, text: Words) -> float:
        """What the similarity of texts as long as this one has to be."""
        if self._short(text) and isinstance(self.short, int | float):
            return self.short
        return self.threshold

    def _short(self, text: Words) -> bool:
        return self.window is not None and len(text) < self.window

    def of(
        self, original: Words, previous: Words, texts: Sequence[Words], place: int
    ) -> Steps[np.ndarray]:
        """Similarity of each text that differs from the previous one at this place, [texts]."""
        reference = previous if self.against == "previous" else original
        pieces = [self._piece(text, place) for text in (reference, *texts)]
        first, *others = yield Request("encoder", pieces)
        cosines = np.stack(others) @ first
        return angular(cosines) if self.metric == "angular" else cosines

    def _piece(self, text: Words, place: int) -> str:
        return text.text if self.window is None else text.window(place, self.window)


def angular(cosines: np.ndarray) -> np.ndarray:
    """1 - arccos(cos) / pi, from -1 ... 1 to 0 ... 1.

    >>> angular(np.array([1.0, 0.0, -1.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    return 1 - np.arccos(np.clip(cosines, -1.0, 1.0)) / np.pi


def cosine(a: Words, b: Words) -> Steps[float]:
    """Cosine of two whole texts' vectors."""
    first, second = yield Request("encoder", [a.text, b.text])
    return float(first @ second)
