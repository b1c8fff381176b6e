"""TextBugger: Li et al., NDSS 2019, arXiv:1812.05271."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from lit_adv.attacks import bugs, importance, textattack_bugs
from lit_adv.attacks.choice import Taken, best, check_choice
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Goal
from lit_adv.attacks.greedy import check_limits, search
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words
from lit_adv.ranges import one_of, whole

# Between words: a full stop inside a number or an abbreviation has no space behind it.
STOP = re.compile(r"[.!?].*\s|[\u3002\uff01\uff1f]", re.DOTALL)


def of_paper(word: str, random: Random) -> list[str]:
    """A space inside, a letter less, a swap, a look-alike or a neighbouring key: one of each."""
    similar = [*bugs.look_alike(word), *bugs.keyboard(word)]
    options = (bugs.insert_space(word), bugs.delete(word), bugs.swap(word), similar)
    found = [bugs.one(each, random) for each in options]
    return [each for each in found if each is not None]


BUGS = {"paper": of_paper, "textattack": textattack_bugs.of_word}


@dataclass(kw_only=True, frozen=True)
class TextBugger:
    """Words misspelt by the bug that costs the label most, sentence by sentence (black box).

    Algorithms 3 to 5 of the paper. Sentences by P(y | sentence), those of another class left out;
    in a sentence, words by P(y | X) - P(y | X without w). Bugs: a space inside (words of fewer than
    six letters), an inner letter deleted, two inner letters swapped (words of more than four), a
    letter for one that looks alike or lies beside it on the keyboard, the nearest `neighbours`
    words. When the text is no longer similar enough, the attack has failed.

    The paper takes the best bug even where it helps the label; here only one that costs it.

    Args:
        bugs: `paper`, one of each kind by chance; or those of `textattack` 0.3.11, which has spaces
            and swaps in longer and shorter words too, a look-alike of every letter, and no keys.
        neighbours: words as candidates, where neighbours are at hand; 0 = none.
        min_cosine: least cosine of their vectors.
        similarity: condition on the text; None = none.
        dissimilar: `stop`, as in the paper, or `skip` such candidates and go on, as tools do.
        constrain: where they are skipped, look `before` the victim is asked, or `after`.
        sentences: rank sentences first.
        spare_stop_words: leave stop words alone and unranked, as tools do and the paper does not.
        winners: `all` candidates that turn the prediction, or the `leading` alone, as tools do; see
            `choice.best`.
        max_changed: largest share of changed words; None = no limit.
        round_up: round that number of words up, as tools do; else it is never exceeded.
        query_budget: most questions to the victim per word of the text; None = no limit.
    """

    bugs: Literal["paper", "textattack"] = "paper"
    neighbours: int = 5
    min_cosine: float = 0.0
    similarity: Similarity | None = Similarity(threshold=0.8, metric="cosine")
    dissimilar: Literal["stop", "skip"] = "stop"
    constrain: Literal["before", "after"] = "after"
    sentences: bool = True
    spare_stop_words: bool = False
    winners: Literal["all", "leading"] = "all"
    max_changed: float | None = None
    round_up: bool = False
    query_budget: int | None = None

    needs = ("neighbours?", "stop_words", "encoder")

    def __post_init__(self) -> None:
        one_of(tuple(BUGS), "attack.bugs", self.bugs)
        whole(0, "attack.neighbours", self.neighbours)
        one_of(("stop", "skip"), "attack.dissimilar", self.dissimilar)
        check_choice(self.constrain, self.winners)
        check_limits(self.max_changed, self.query_budget)

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]:
        text = goal.original
        before = yield from goal.ask([text])
        parts = yield from self._sentences(goal)
        free = tools.free(text) if self.spare_stop_words else range(len(text))
        lost = yield from importance.lost(goal, before, free)
        ranked = importance.order(lost, free)
        places = [w for part in parts for w in ranked if w in part]

        def candidates(now: Words, place: int) -> Steps[Sequence[str]]:
            yield from ()
            random = Random(f"{tools.seed} {place} {text.text}")
            return self._bugs(now.words[place], random, tools)

        similarity = self.similarity if "encoder" in tools.oracles else None
        if self.dissimilar == "skip":
            choose = partial(
                best, similarity=similarity, constrain=self.constrain, winners=self.winners
            )
        else:
            choose = partial(best_or_stop, similarity=similarity)
        return (
            yield from search(
                goal, before, places, candidates, choose,
                max_changed=self.max_changed, round_up=self.round_up,
            )
        )  # fmt: skip

    def _sentences(self, goal: Goal) -> Steps[list[range]]:
        """The text's sentences, the surest first, without those of another class."""
        parts = sentences(goal.original)
        if not self.sentences or len(parts) == 1:
            return [range(len(goal.original))]
        answers = yield from goal.ask([goal.original.part(p.start, p.stop) for p in parts])
        ranked = [parts[i] for i in importance.order(answers.of_label) if not answers.flipped[i]]
        return ranked or parts  # a text has a class that none of its sentences may have

    def _bugs(self, word: str, random: Random, tools: Tools) -> list[str]:
        found = BUGS[self.bugs](word, random)
        if self.neighbours and tools.neighbours is not None:
            found += tools.neighbours.near(word, self.neighbours, self.min_cosine)
        return list(dict.fromkeys(found))


def best_or_stop(
    goal: Goal, now: Taken, texts: Sequence[Words], place: int, similarity: Similarity | None
) -> Steps[Taken]:
    """The best bug, or the end with the original if the text is then not similar enough."""
    taken = yield from best(goal, now, texts, place)
    if similarity is None or taken is now or not similarity.looks(now.text):
        return taken
    (alike,) = yield from similarity.of(goal.original, now.text, [taken.text], place)
    if alike < similarity.least(taken.text):
        return Taken(goal.original, now.left, over=True)
    return taken


def sentences(text: Words) -> list[range]:
    """The places of each sentence's words.

    >>> sentences(Words.of("Good. A 3.5 bad film!"))
    [range(0, 1), range(1, 6)]
    """
    inner = range(1, len(text))
    starts = [0, *(place for place in inner if STOP.search(text.gaps[place])), len(text)]
    return [range(start, stop) for start, stop in zip(starts, starts[1:], strict=False)]
