"""Goal: what one attack wants of the victim, what it has asked so far, how much it may ask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_adv.attacks.engine import Request, Steps
from lit_adv.attacks.words import Words


@dataclass(frozen=True)
class Answers:
    """The victim's probabilities for some texts, [texts, classes], and the label they should have.

    Softmax is taken in float32, as the tools do whose figures are published: a victim sure enough
    of itself says exactly 1, and its ranking of words says nothing more.
    """

    probabilities: np.ndarray
    label: int

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def of_label(self) -> np.ndarray:
        """Probability of the label, [texts]."""
        return self.probabilities[:, self.label]

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class, [texts]."""
        return self.probabilities.argmax(1)

    @property
    def flipped(self) -> np.ndarray:
        """Whether another class than the label is the most probable, [texts]."""
        return self.predictions != self.label


class Goal:
    """Any class but the label (untargeted).

    Args:
        original: the text under attack.
        label: its class.
        temperature: T; the victim says softmax(logits / T).
        budget: most questions to the victim; None = as many as the attack likes.
    """

    def __init__(
        self,
        original: Words,
        label: int,
        *,
        temperature: float = 1.0,
        budget: int | None = None,
    ) -> None:
        self.original = original
        self.label = label
        self.temperature = temperature
        self.budget = budget
        self.queries = 0

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.budget is not None and self.queries >= self.budget

    def ask(self, texts: Sequence[Words]) -> Steps[Answers]:
        """The victim's answers: to the first texts only where the budget ends."""
        left = len(texts) if self.budget is None else max(0, self.budget - self.queries)
        texts = texts[:left]
        if not texts:
            return Answers(np.zeros((0, self.label + 1), dtype=np.float32), self.label)
        self.queries += len(texts)
        logits = yield Request("victim", [text.item for text in texts])
        return Answers(softmax(logits, self.temperature), self.label)

    def confirmed(self, texts: Sequence[Words]) -> Steps[list[bool]]:
        """Which of these texts are another class in full precision too; not counted as questions.

        In bfloat16 a prediction in a thousand differs: an attack uses it, a result must not.
        """
        if not texts:
            return []
        logits = yield Request("exact", [text.item for text in texts])
        return [int(np.argmax(each)) != self.label for each in logits]

    def take_back(self, questions: int) -> None:
        """Questions asked together that an attack would have asked one by one, and not got to."""
        self.queries -= questions


def softmax(logits: Sequence[Any], temperature: float) -> np.ndarray:
    """softmax(logits / T) of each row, in float32."""
    scaled = np.stack(logits).astype(np.float32) / np.float32(temperature)
    exponents = np.exp(scaled - scaled.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)
