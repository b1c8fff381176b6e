"""BERT-Attack: Li et al., EMNLP 2020, arXiv:2004.09984."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lit_adv.attacks import importance
from lit_adv.attacks.choice import best, first
from lit_adv.attacks.engine import Request, Steps
from lit_adv.attacks.goal import Goal
from lit_adv.attacks.greedy import check_limits, search
from lit_adv.attacks.masked_lm import Propose
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words
from lit_adv.ranges import one_of, whole


@dataclass(kw_only=True, frozen=True)
class BertAttack:
    """Words, the most important first, exchanged for what a masked language model proposes there.

    Algorithm 1 of the paper. Importance: what the label's probability loses when the word is masked
    (the paper writes its logit). Candidates: the `candidates` best tokens of one pass of the model
    over the *unmasked* text; of words in several pieces, combinations of pieces by perplexity. The
    first candidate that turns the prediction ends the attack, else the one that leaves the label
    least is taken, if less than before.

    The authors' code (LinyangLee/BERT-Attack at 8a93610) masks with [UNK], adds to the importance
    what another class gains as TextFooler does, never masks the last word, allows one change more
    than 40 %, and may break off at a logit (`masked_lm` can).

    Args:
        candidates: K, tokens per piece.
        max_changed: largest share of changed words; None = no limit.
        round_up: round that number of words up, as tools do; else it is never exceeded.
        rank_stop_words: ask also what the label loses without them, though they stay, as the
            authors' code does and TextAttack 0.3.11 does not.
        mask: the word for the ranking: `mask`, as in the paper, or `unknown`, as in the code.
        min_cosine: refuse candidates whose counter-fitted vector has a smaller cosine with the
            word's (antonyms; 0.4 in the code for sentiment), where the vectors are at hand; None =
            do not look.
        similarity: condition on whole texts; None, as in the paper's code, where it is only
            measured.
        take: `first` winner, or the `best`, as tools do, which costs all K questions.
        query_budget: most questions to the victim per word of the text; None = no limit.
    """

    candidates: int = 48
    max_changed: float | None = 0.4
    round_up: bool = False
    rank_stop_words: bool = True
    mask: Literal["mask", "unknown"] = "mask"
    min_cosine: float | None = None
    similarity: Similarity | None = None
    take: Literal["first", "best"] = "first"
    query_budget: int | None = None

    needs = ("masked_lm", "neighbours?", "stop_words", "encoder")

    def __post_init__(self) -> None:
        whole(1, "attack.candidates", self.candidates)
        one_of(("mask", "unknown"), "attack.mask", self.mask)
        one_of(("first", "best"), "attack.take", self.take)
        check_limits(self.max_changed, self.query_budget)
        if self.take == "first" and self.similarity is not None:
            raise ValueError("attack.take=first: takes no similarity; set attack.take=best")

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]:
        text = goal.original
        before = yield from goal.ask([text])
        hidden = tools.mask if self.mask == "mask" else tools.unknown
        free = tools.free(text)
        asked = range(len(text)) if self.rank_stop_words else free
        lost = yield from importance.lost(goal, before, asked, hidden)
        places = [w for w in importance.order(lost, asked) if w in free]
        words, index = punctuated(text)
        wanted = Propose(words, tuple(index[place] for place in places), self.candidates)
        (proposed,) = yield Request("masked_lm", [wanted])
        of_place = dict(zip(places, proposed, strict=True))

        def candidates(now: Words, place: int) -> Steps[Sequence[str]]:
            yield from ()
            return [w for w in of_place[place] if self._allowed(w, now.words[place], tools)]

        similarity = self.similarity if "encoder" in tools.oracles else None
        choose = (
            first
            if self.take == "first"
            else partial(best, similarity=similarity, winners="leading")
        )
        return (
            yield from search(
                goal, before, places, candidates, choose,
                max_changed=self.max_changed, round_up=self.round_up,
            )
        )  # fmt: skip

    def _allowed(self, candidate: str, word: str, tools: Tools) -> bool:
        if candidate.lower() == word.lower() or tools.keeps(candidate) or " " in candidate:
            return False
        if self.min_cosine is None or tools.neighbours is None:
            return True
        cosine = tools.neighbours.cosine(word, candidate)
        return cosine is None or cosine >= self.min_cosine


def punctuated(text: Words) -> tuple[tuple[str, ...], list[int]]:
    """The words with what stands between them, as a language model reads them; where each word is.

    >>> punctuated(Words.of("Good, really!"))
    (('Good', ',', 'really', '!'), [0, 2])
    """
    pieces: list[str] = []
    index: list[int] = []
    for gap, word in zip(text.gaps, text.words, strict=False):
        pieces += gap.split()
        index.append(len(pieces))
        pieces.append(word)
    return (*pieces, *text.gaps[-1].split()), index
