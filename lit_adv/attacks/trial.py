"""One attack on one text, from the clean answer to its record."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lit_adv.attacks import similarity
from lit_adv.attacks.engine import Request, Steps
from lit_adv.attacks.goal import Goal
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words


class Recipe(Protocol):
    """How texts are attacked: one class per paper."""

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def query_budget(self) -> int | None: ...

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]: ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row of a data set.

    Args:
        index: its row.
        text: its text, or its second text with the first.
        label: its class.
    """

    index: int
    text: Words
    label: int

    def odd(self, classes: int) -> str | None:
        """Why it cannot be attacked, if it cannot."""
        if not 0 <= self.label < classes:
            return f"label {self.label}: the victim knows {classes} classes"
        if not self.text.words:
            return "no words" if self.text.text.strip() else "empty text"
        return None


def trial(
    example: Example, recipe: Recipe, tools: Tools, temperature: float
) -> Steps[dict[str, Any]]:
    """Attack the example; a record of what came out.

    The clean prediction and the last one are in full precision. `changed` is the share of words
    exchanged, `similarity` the cosine of the whole texts.

    Args:
        example: to be attacked.
        recipe: how.
        tools: with what.
        temperature: the victim's.
    """
    original = example.text
    prediction = yield from _predict(original)
    if prediction != example.label:
        return {"outcome": "misclassified", "prediction": prediction}

    each = recipe.query_budget
    budget = None if each is None else each * len(original)
    goal = Goal(original, example.label, temperature=temperature, budget=budget)
    reached = yield from recipe(goal, tools)

    now = yield from _predict(reached)
    changes = reached.changed(original)
    alike = None
    if "encoder" in tools.oracles and changes:
        alike = yield from similarity.cosine(original, reached)
    return {
        "outcome": "failed" if now == example.label else "succeeded",
        "prediction": prediction,
        "new_prediction": now,
        "perturbed": reached.text,
        "marked_original": original.segments(reached),
        "marked_perturbed": reached.segments(original),
        "changes": [
            {"place": i, "from": original.words[i], "to": reached.words[i]} for i in changes
        ],
        "queries": goal.queries,
        "changed": len(changes) / len(original),
        "similarity": alike,
    }


def _predict(text: Words) -> Steps[int]:
    (logits,) = yield Request("exact", [text.item])
    return int(np.argmax(logits))
