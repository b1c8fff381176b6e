"""TextFooler: Jin et al., AAAI 2020, arXiv:1907.11932."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lit_adv.attacks import importance, speech
from lit_adv.attacks.choice import best, check_choice
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Goal
from lit_adv.attacks.greedy import check_limits, search
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words
from lit_adv.ranges import one_of, whole


@dataclass(kw_only=True, frozen=True)
class TextFooler:
    """Words, the most important first, exchanged for counter-fitted neighbours of the same kind.

    Algorithm 1 of the paper. Importance of w: P(y | X) - P(y | X without w), and where the
    prediction turns to c also P(c | X without w) - P(c | X). Candidates: the nearest `neighbours`
    with cosine >= `min_cosine` and the same part of speech (nouns and verbs count as one). Of those
    similar enough the winner most alike, else the one that leaves y least, if less than before.

    The authors' code (jind11/TextFooler at d47e724) asks for 1 - arccos(cos) >= 0.5, that is
    0.840845 in half turns, over 15 words, and for 1 - arccos(cos) >= 0.1 in texts shorter than
    that; it writes `<oov>` where the paper deletes, and takes a candidate that is better than the
    original, not than what has been reached. Here: the code's thresholds, the paper's steps.

    Args:
        neighbours: candidates per word.
        min_cosine: least cosine of their vectors; tables of neighbours do not say it.
        similarity: condition on sentences; None = none.
        constrain: `before` the victim is asked, as in the paper, or `after`, as in the code: the
            same text for fewer sentences to encode, and more questions counted (the code also
            counts candidates of another part of speech).
        same_speech: keep the part of speech, where there is a tagger.
        ranking: importance by the word `deleted`, as in the paper, or written as `unknown`.
        flips: the second part of the importance.
        rank_stop_words: ask also what the label loses without them, though they stay, as the
            authors' code does and TextAttack 0.3.11 does not.
        winners: `all` candidates that turn the prediction, or the `leading` alone, as tools do; see
            `choice.best`.
        max_changed: largest share of changed words; None = no limit.
        round_up: round that number of words up, as tools do; else it is never exceeded.
        query_budget: most questions to the victim per word of the text; None = no limit.
    """

    neighbours: int = 50
    min_cosine: float = 0.5
    similarity: Similarity | None = Similarity(
        threshold=0.840845057, window=15, against="previous", short=0.713521
    )
    constrain: Literal["before", "after"] = "after"
    same_speech: bool = True
    ranking: Literal["deleted", "unknown"] = "deleted"
    flips: bool = True
    rank_stop_words: bool = True
    winners: Literal["all", "leading"] = "all"
    max_changed: float | None = None
    round_up: bool = False
    query_budget: int | None = None

    needs = ("neighbours", "stop_words", "encoder", "tagger")

    def __post_init__(self) -> None:
        whole(1, "attack.neighbours", self.neighbours)
        check_choice(self.constrain, self.winners)
        one_of(("deleted", "unknown"), "attack.ranking", self.ranking)
        check_limits(self.max_changed, self.query_budget)

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]:
        text = goal.original
        before = yield from goal.ask([text])
        free = tools.free(text)
        asked = range(len(text)) if self.rank_stop_words else free
        hidden = tools.unknown if self.ranking == "unknown" else None
        lost = yield from importance.lost(goal, before, asked, hidden, flips=self.flips)
        places = [w for w in importance.order(lost, asked) if w in free]

        def candidates(now: Words, place: int) -> Steps[Sequence[str]]:
            assert tools.neighbours is not None
            near = tools.neighbours.near(now.words[place], self.neighbours, self.min_cosine)
            if not self.same_speech:
                return near
            return (yield from speech.same(now, place, near, tools))

        similarity = self.similarity if "encoder" in tools.oracles else None
        choose = partial(
            best, similarity=similarity, constrain=self.constrain, winners=self.winners
        )
        return (
            yield from search(
                goal, before, places, candidates, choose,
                max_changed=self.max_changed, round_up=self.round_up,
            )
        )  # fmt: skip
