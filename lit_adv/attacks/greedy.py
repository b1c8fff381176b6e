"""The greedy search that most attacks share: word after word, each exchanged for the best."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor

from lit_adv.attacks.choice import Choose, Taken
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.words import Words
from lit_adv.ranges import at_least, whole

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
    round_up: bool = False,
) -> Steps[Words]:
    """Exchange words in this order until the victim gives in; the text reached.

    Args:
        goal: of the attack.
        before: the victim's answer to the original.
        places: of words, the first to be exchanged first; each at most once.
        candidates: what may stand at a place of the text as it is by then.
        choose: which of the candidates is taken, if any.
        max_changed: largest share of words that are changed; None = all may be.
        round_up: see `most_changed`.
    """
    now = Taken(goal.original, float(before.of_label[0]))
    most = most_changed(goal.original, max_changed, round_up=round_up)
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


def most_changed(text: Words, share: float | None, *, round_up: bool = False) -> int:
    """How many of the text's words may be changed.

    >>> [most_changed(Words.of("one two three four"), share) for share in (0.3, 0.5, None)]
    [1, 2, 4]
    >>> most_changed(Words.of("one two three four"), 0.3, round_up=True)
    2
    """
    if share is None:
        return len(text)
    rounding = 1e-9  # 0.3 * 10 is three words, and so is 0.1 * 30
    words = share * len(text)
    return ceil(words - rounding) if round_up else floor(words + rounding)


def check_limits(max_changed: float | None, query_budget: int | None) -> None:
    """Refuse limits out of their range.

    Raises:
        ValueError: a share of words beyond 0 to 1, or a budget below one question per word.
    """
    key = "attack.max_changed"
    if max_changed is not None and at_least(0.0, key, max_changed) > 1:
        raise ValueError(f"{key}={max_changed}: is a share of the words: needs to be at most 1")
    if query_budget is not None:
        whole(1, "attack.query_budget", query_budget)
