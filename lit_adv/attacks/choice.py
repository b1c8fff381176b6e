"""Which of the candidates for one place an attack takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.words import Words


@dataclass(frozen=True)
class Taken:
    """What an attack has come to: a text, what it leaves the label, whether that is the end."""

    text: Words
    left: float
    over: bool = False


Choose = Callable[[Goal, Taken, Sequence[Words], int], Steps[Taken]]
"""From what has been reached, and candidates that differ from it at a place, to what is taken."""


def best(
    goal: Goal,
    now: Taken,
    texts: Sequence[Words],
    place: int,
    similarity: Similarity | None = None,
    *,
    constrain: str = "before",
) -> Steps[Taken]:
    """The winner that stays most alike; else whatever leaves the label least, if less than now.

    Without a condition on similarity, the winner that leaves the label least.

    Args:
        goal: of the attack.
        now: what the attack has reached.
        texts: candidates, which differ from that at this place.
        place: where.
        similarity: condition on candidates; None = all are admissible.
        constrain: look at the similarity `before` the victim is asked (as papers write it, and
            tools count questions), or `after` it and only of those whose turn comes (as
            TextFooler's code counts): the same text is taken, by fewer sentences to encode and more
            questions.
    """
    if similarity is not None and not similarity.looks(now.text):
        similarity = None
    if similarity is None or constrain == "after":
        answers = yield from goal.ask(texts)
        return (yield from _lazily(goal, now, texts[: len(answers)], answers, place, similarity))
    alike = yield from similarity.of(goal.original, now.text, texts, place)
    allowed = np.flatnonzero(alike >= similarity.least(now.text)).tolist()
    answers = yield from goal.ask([texts[i] for i in allowed])
    allowed = allowed[: len(answers)]  # the budget may have ended
    won = yield from winners(goal, [texts[i] for i in allowed], answers)
    if won:
        i = max(won, key=lambda i: (alike[allowed[i]], -i))
        return Taken(texts[allowed[i]], float(answers.of_label[i]), over=True)
    return least(now, [texts[i] for i in allowed], answers)


def first(goal: Goal, now: Taken, texts: Sequence[Words], place: int) -> Steps[Taken]:
    """The first winner, else whatever leaves the label least, if less than now (BERT-Attack).

    Asked together; the questions behind the winner's, which one by one had not come up, are not
    counted.
    """
    answers = yield from goal.ask(texts)
    won = yield from winners(goal, texts, answers)
    if won:
        goal.take_back(len(answers) - won[0] - 1)
        return Taken(texts[won[0]], float(answers.of_label[won[0]]), over=True)
    return least(now, texts, answers)


def least(now: Taken, texts: Sequence[Words], answers: Answers) -> Taken:
    """The text that leaves the label least, if that is less than now."""
    if not len(answers) or answers.of_label.min() >= now.left:
        return now
    i = int(answers.of_label.argmin())
    return Taken(texts[i], float(answers.of_label[i]))


def _lazily(
    goal: Goal,
    now: Taken,
    texts: Sequence[Words],
    answers: Answers,
    place: int,
    similarity: Similarity | None,
) -> Steps[Taken]:
    won = yield from winners(goal, texts, answers)
    ranked = np.argsort(answers.of_label, kind="stable").tolist()
    if similarity is None:
        if won:
            i = min(won, key=lambda i: answers.of_label[i])
            return Taken(texts[i], float(answers.of_label[i]), over=True)
        return least(now, texts, answers)

    enough = similarity.least(now.text)
    if won:
        alike = yield from similarity.of(goal.original, now.text, [texts[i] for i in won], place)
        if alike.max() >= enough:
            i = won[int(alike.argmax())]
            return Taken(texts[i], float(answers.of_label[i]), over=True)
    for i in ranked:
        if answers.of_label[i] >= now.left:
            break
        if i in set(won):  # none of them was alike enough
            continue
        (alike,) = yield from similarity.of(goal.original, now.text, [texts[i]], place)
        if alike >= enough:
            return Taken(texts[i], float(answers.of_label[i]))
    return now


def winners(goal: Goal, texts: Sequence[Words], answers: Answers) -> Steps[list[int]]:
    """Which texts the victim takes for another class, in full precision too."""
    flipped = np.flatnonzero(answers.flipped).tolist()
    confirmed = yield from goal.confirmed([texts[i] for i in flipped])
    return [i for i, sure in zip(flipped, confirmed, strict=True) if sure]
