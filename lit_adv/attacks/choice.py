"""Which of the candidates for one place an attack takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.words import Words
from lit_adv.ranges import one_of


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
    winners: str = "all",
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
        winners: `all` candidates that turn the prediction, or the `leading` alone, as TextAttack
            has it: that leave the label less than every other candidate, and than now. With more
            than two classes, and a condition looked at before, there may be others.
    """
    if similarity is not None and not similarity.looks(now.text):
        similarity = None
    if similarity is None or constrain == "after":
        answers = yield from goal.ask(texts)
        texts = texts[: len(answers)]
        if winners == "leading":
            won = yield from winner(goal, texts, answers, leading(now, answers))
            return won or least(now, texts, answers)
        return (yield from _lazily(goal, now, texts, answers, place, similarity))
    alike = yield from similarity.of(goal.original, now.text, texts, place)
    allowed = np.flatnonzero(alike >= similarity.least(now.text)).tolist()
    answers = yield from goal.ask([texts[i] for i in allowed])
    asked = [texts[i] for i in allowed[: len(answers)]]  # the budget may have ended
    order = np.argsort(-alike[allowed[: len(answers)]], kind="stable").tolist()
    if winners == "leading":
        order = [i for i in order if i in leading(now, answers)]
    won = yield from winner(goal, asked, answers, order)
    return won or least(now, asked, answers)


def first(goal: Goal, now: Taken, texts: Sequence[Words], place: int) -> Steps[Taken]:
    """The first winner, else whatever leaves the label least, if less than now (BERT-Attack).

    Asked together; the questions behind the winner's, which one by one had not come up, are not
    counted.
    """
    answers = yield from goal.ask(texts)
    won = yield from winner(goal, texts, answers, range(len(answers)))
    if won is None:
        return least(now, texts, answers)
    goal.take_back(len(answers) - 1 - next(i for i in range(len(texts)) if texts[i] is won.text))
    return won


def least(now: Taken, texts: Sequence[Words], answers: Answers) -> Taken:
    """The text that leaves the label least, if that is less than now."""
    if not len(answers) or answers.of_label.min() >= now.left:
        return now
    i = int(answers.of_label.argmin())
    return Taken(texts[i], float(answers.of_label[i]))


def leading(now: Taken, answers: Answers) -> list[int]:
    """The candidates that turn the prediction, from the least P(label) to the first that does not.

    None if the least is not less than now.
    """
    ranked = np.argsort(answers.of_label, kind="stable").tolist()
    if not ranked or answers.of_label[ranked[0]] >= now.left:
        return []
    return list(takewhile(lambda i: answers.flipped[i], ranked))


def _lazily(
    goal: Goal,
    now: Taken,
    texts: Sequence[Words],
    answers: Answers,
    place: int,
    similarity: Similarity | None,
) -> Steps[Taken]:
    ranked = np.argsort(answers.of_label, kind="stable").tolist()
    if similarity is None:
        won = yield from winner(goal, texts, answers, ranked)
        return won or least(now, texts, answers)

    enough = similarity.least(now.text)
    alike: dict[int, float] = {}
    flipped = np.flatnonzero(answers.flipped).tolist()
    if flipped:
        some = [texts[i] for i in flipped]
        found = yield from similarity.of(goal.original, now.text, some, place)
        alike = dict(zip(flipped, found.tolist(), strict=True))
        order = [i for i in sorted(alike, key=lambda i: -alike[i]) if alike[i] >= enough]
        won = yield from winner(goal, texts, answers, order)
        if won is not None:
            return won
    for i in ranked:
        if answers.of_label[i] >= now.left:
            break
        if i not in alike:
            found = yield from similarity.of(goal.original, now.text, [texts[i]], place)
            alike[i] = float(found[0])
        if alike[i] >= enough:
            return Taken(texts[i], float(answers.of_label[i]))
    return now


def winner(
    goal: Goal, texts: Sequence[Words], answers: Answers, order: Iterable[int]
) -> Steps[Taken | None]:
    """The first text in this order that is another class, in full precision too, if there is one.

    They are checked one by one: full precision is dear, and nearly always agrees.
    """
    for i in order:
        if answers.flipped[i]:
            (sure,) = yield from goal.confirmed([texts[i]])
            if sure:
                return Taken(texts[i], float(answers.of_label[i]), over=True)
    return None


def check_choice(constrain: str, winners: str) -> None:
    """Refuse what `best` does not know.

    Raises:
        ValueError: another word, or the leading winners of candidates that are looked at later.
    """
    one_of(("before", "after"), "attack.constrain", constrain)
    one_of(("all", "leading"), "attack.winners", winners)
    if (constrain, winners) == ("after", "leading"):
        raise ValueError(
            "attack.winners=leading: of candidates that may be taken; set constrain=before"
        )
