"""The greedy search that most attacks share: word after word, each exchanged for the best."""

from collections.abc import Callable, Iterable, Sequence

from lit_adv.attacks.choice import Choose, Taken
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.words import Words

Candidates = Callable[[Words, int], Steps[Sequence[str]]]
"""From a text and a place in it to words that may stand there."""


def search(
    goal: Goal,
    before: Answers,
    places: Iterable[int],
    candidates: Candidates,
    choose: Choose,
    *,
    max_changed: float | None = None,
) -> Steps[Words]:
    """Exchange words in this order until the victim gives in; the text reached.

    Args:
        goal: of the attack.
        before: the victim's answer to the original.
        places: of words, the first to be exchanged first; each at most once.
        candidates: what may stand at a place of the text as it is by then.
        choose: which of the candidates is taken, if any.
        max_changed: largest share of words that are changed; None = all may be.
    """
    now = Taken(goal.original, float(before.of_label[0]))
    most = (
        len(goal.original) if max_changed is None else int(max_changed * len(goal.original) + 1e-9)
    )
    changed = 0
    for place in places:
        if goal.spent or changed >= most:
            break
        words = yield from candidates(now.text, place)
        texts = [now.text.exchange(place, word) for word in words]
        if not texts:
            continue
        taken = yield from choose(goal, now, texts, place)
        changed += taken is not now
        now = taken
        if now.over:
            break
    return now.text
