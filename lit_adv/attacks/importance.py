"""How much each word matters to the victim: the order in which attacks change words."""

from collections.abc import Sequence

import numpy as np

from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.words import Words


def order(importance: np.ndarray, places: Sequence[int] | None = None) -> list[int]:
    """Places from the most important to the least; equally important ones as they come.

    Args:
        importance: of the first places, or of all.
        places: None = 0, 1, ...
    """
    ranked = np.argsort(-importance, kind="stable").tolist()
    return ranked if places is None else [places[i] for i in ranked]


def lost(
    goal: Goal,
    before: Answers,
    places: Sequence[int],
    replacement: str | None = None,
    *,
    flips: bool = False,
) -> Steps[np.ndarray]:
    """What the label loses when a word is taken away: P(y | X) - P(y | X without w), [places].

    Of fewer places, the first, where the budget ends.

    Args:
        goal: of the attack.
        before: the answer to the original.
        places: of the words that are ranked.
        replacement: what stands in the word's place; None deletes it.
        flips: where that turns the prediction to a class c, add P(c | X without w) - P(c | X)
            (TextFooler, arXiv:1907.11932, equation 2).
    """
    answers = yield from goal.ask(reduced(goal.original, places, replacement))
    importance = before.of_label - answers.of_label
    if flips:
        rows, others = np.arange(len(answers)), answers.predictions
        gained = answers.probabilities[rows, others] - before.probabilities[0, others]
        importance = importance + np.where(answers.flipped, gained, 0.0)
    return importance


def reduced(text: Words, places: Sequence[int], replacement: str | None) -> Sequence[Words]:
    """The text without each of these words in turn."""
    if replacement is None:
        return [text.without(place) for place in places]
    return [text.exchange(place, replacement) for place in places]
