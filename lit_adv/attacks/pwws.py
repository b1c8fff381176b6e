"""PWWS, probability weighted word saliency: Ren et al., ACL 2019."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lit_adv.attacks import importance, speech
from lit_adv.attacks.choice import best, winner
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.greedy import check_limits, most_changed, search
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.words import Words

TOGETHER = 4


@dataclass(kw_only=True, frozen=True)
class PWWS:
    """Words exchanged for WordNet synonyms, ordered by saliency times what the best one costs.

    S_i = P(y | X) - P(y | X with w_i unknown); w*_i = the synonym with the largest
    dP_i = P(y | X) - P(y | X with w*_i). In the order of softmax(S)_i dP_i, words become their w*_i
    until the victim gives in.

    The authors' code (JHL-HUST/PWWS) also exchanges named entities for those of other classes,
    which needs a recogniser and the data set's labels: left out here, as in other tools. Where no
    synonym costs the label anything, its code keeps the word; so does this.

    Args:
        same_speech: synonyms of the word's part of speech only, where there is a tagger.
        spare_stop_words: leave stop words alone and unranked, as tools do and the paper does not.
        stepwise: as TextAttack 0.3.11 has it: ordered by softmax(S)_i (1 - P(y | X with w*_i)), and
            each word's synonyms are asked for again in the text as it is by then; the best that
            costs the label something is taken.
        max_changed: largest share of changed words; None = no limit.
        round_up: round that number of words up, as tools do; else it is never exceeded.
        query_budget: most questions to the victim per word of the text; None = no limit.
    """

    same_speech: bool = True
    spare_stop_words: bool = False
    stepwise: bool = False
    max_changed: float | None = None
    round_up: bool = False
    query_budget: int | None = None

    needs = ("wordnet", "stop_words", "encoder", "tagger")

    def __post_init__(self) -> None:
        check_limits(self.max_changed, self.query_budget)

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]:
        text = goal.original
        before = yield from goal.ask([text])
        places = tools.free(text) if self.spare_stop_words else range(len(text))
        salience = yield from importance.lost(goal, before, places, tools.unknown)
        weights = np.exp(salience)  # softmax up to a factor; a salience lies between -1 and 1
        synonyms = yield from self._synonyms(text, places, tools)
        texts = [text.exchange(i, w) for i, group in synonyms.items() for w in group]
        answers = yield from goal.ask(texts)

        start = 1.0 if self.stepwise else float(before.of_label[0])
        gains: dict[int, tuple[float, str]] = {}
        left = iter(answers.of_label)
        for weight, (i, group) in zip(weights, synonyms.items(), strict=False):
            dropped = [start - float(p) for _, p in zip(group, left, strict=False)]
            if dropped:
                k = int(np.argmax(dropped))
                gains[i] = (float(weight) * dropped[k], group[k])
        order = sorted(gains, key=lambda i: (-gains[i][0], i))
        if self.stepwise:
            return (yield from self._step_by_step(goal, before, order, synonyms))
        order = [i for i in order if gains[i][0] > 0]
        order = order[: most_changed(text, self.max_changed, round_up=self.round_up)]
        return (yield from exchange_in_turn(goal, order, {i: w for i, (_, w) in gains.items()}))

    def _step_by_step(
        self, goal: Goal, before: Answers, order: Sequence[int], synonyms: dict[int, list[str]]
    ) -> Steps[Words]:
        def candidates(now: Words, place: int) -> Steps[Sequence[str]]:
            yield from ()
            return synonyms[place]

        return (
            yield from search(
                goal, before, order, candidates, partial(best, winners="leading"),
                max_changed=self.max_changed, round_up=self.round_up,
            )
        )  # fmt: skip

    def _synonyms(
        self, text: Words, places: Sequence[int], tools: Tools
    ) -> Steps[dict[int, list[str]]]:
        assert tools.wordnet is not None
        kinds: Sequence[str | None] = [None] * len(text)
        if self.same_speech and "tagger" in tools.oracles:
            kinds = yield from speech.kinds(text)
        found = {}
        for place in places:
            kind = kinds[place]
            wanted = speech.OPEN if kind is None else (kind,)
            each = [w for k in wanted for w in tools.wordnet.synonyms(text.words[place], k)]
            found[place] = list(dict.fromkeys(each))
        return found


def exchange_in_turn(goal: Goal, order: Sequence[int], words: dict[int, str]) -> Steps[Words]:
    """Exchange these words one after the other until the victim gives in; the text reached.

    The steps are known beforehand, so some are asked for together; those behind the winner's are
    not counted.
    """
    now = goal.original
    for some in (order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)):
        steps = [now]
        for place in some:
            steps.append(steps[-1].exchange(place, words[place]))
        answers: Answers = yield from goal.ask(steps[1:])
        won = yield from winner(goal, steps[1:], answers, range(len(answers)))
        if won is not None:
            goal.take_back(len(answers) - steps[1:].index(won.text) - 1)
            return won.text
        now = steps[len(answers)]
        if goal.spent:
            break
    return now
