"""DeepWordBug: Gao et al., DLS 2018, arXiv:1801.04354."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

import numpy as np

from lit_adv.attacks import bugs, importance
from lit_adv.attacks.choice import Taken, best, first
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Goal
from lit_adv.attacks.greedy import check_limits, search
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words
from lit_adv.ranges import at_least, one_of, whole

CHANGES = {
    "swap": bugs.swap_any,
    "substitute": bugs.substitute,
    "delete": bugs.delete_any,
    "insert": bugs.insert_letter,
}


@dataclass(kw_only=True, frozen=True)
class DeepWordBug:
    """Words, the most important first, misspelt by one random letter until the edits are used up.

    Algorithm 1 of the paper. Combined score of word i of n, F = P(y | .):
    F(x_1 ... x_i) - F(x_1 ... x_{i-1}) + tail * (F(x_i ... x_n) - F(x_{i+1} ... x_n)).

    The paper asks the victim once, when the edits are used up; here after every word, so that fewer
    words are changed.

    Args:
        change: swap, substitute, delete or insert a letter, as the paper does one of them; `any` =
            the best of the four for every word, as tools do.
        ranking: `combined`, the paper's score; or what the label loses when the word is `deleted`
            or written as `unknown`, as tools do.
        tail: weight of the score's second part.
        edits: largest edit distance in all.
        spare_stop_words: leave stop words alone and, but for the combined score, unranked, as tools
            do and the paper does not.
        query_budget: most questions to the victim per word of the text; None = no limit.
    """

    change: Literal["swap", "substitute", "delete", "insert", "any"] = "substitute"
    ranking: Literal["combined", "deleted", "unknown"] = "combined"
    tail: float = 1.0
    edits: int = 30
    spare_stop_words: bool = False
    query_budget: int | None = None

    needs = ("stop_words", "encoder")

    def __post_init__(self) -> None:
        one_of((*CHANGES, "any"), "attack.change", self.change)
        one_of(("combined", "deleted", "unknown"), "attack.ranking", self.ranking)
        at_least(0.0, "attack.tail", self.tail)
        whole(1, "attack.edits", self.edits)
        check_limits(None, self.query_budget)

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]:
        text = goal.original
        before = yield from goal.ask([text])
        free = tools.free(text) if self.spare_stop_words else range(len(text))
        if self.ranking == "combined":
            score = yield from combined(goal, self.tail)
            places = [w for w in importance.order(score) if w in free]
        else:
            hidden = tools.unknown if self.ranking == "unknown" else None
            score = yield from importance.lost(goal, before, free, hidden)
            places = importance.order(score, free)

        def candidates(now: Words, place: int) -> Steps[Sequence[str]]:
            yield from ()
            word = now.words[place]
            random = Random(f"{tools.seed} {place} {text.text}")
            used = sum(map(bugs.edit_distance, now.words, text.words))
            kinds = CHANGES if self.change == "any" else [self.change]
            found = [bugs.one(CHANGES[kind](word), random) for kind in kinds]
            fitting = [
                each
                for each in found
                if each is not None and used + bugs.edit_distance(each, word) <= self.edits
            ]
            return list(dict.fromkeys(fitting))

        choose = partial(best, winners="leading") if self.change == "any" else any_way
        return (yield from search(goal, before, places, candidates, choose))


def combined(goal: Goal, tail: float) -> Steps[np.ndarray]:
    """The temporal head and tail scores of every word, added up."""
    text, n = goal.original, len(goal.original)
    heads = yield from goal.ask([text.part(0, i) for i in range(n + 1)])
    tails = yield from goal.ask([text.part(i, n) for i in range(n + 1)])
    score = np.diff(heads.of_label)
    rest = -np.diff(tails.of_label)
    return score[: len(rest)] + tail * rest if len(rest) else score


def any_way(goal: Goal, now: Taken, texts: Sequence[Words], place: int) -> Steps[Taken]:
    """The first text, whether it costs the label or not; the end if it wins."""
    taken = yield from first(goal, now, texts, place)
    return taken if taken.over else Taken(texts[0], taken.left)
