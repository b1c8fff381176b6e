"""PWWS, probability weighted word saliency: Ren et al., ACL 2019."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_adv.attacks import importance, speech
from lit_adv.attacks.choice import winner
from lit_adv.attacks.engine import Steps
from lit_adv.attacks.goal import Answers, Goal
from lit_adv.attacks.greedy import check_limits, most_changed
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
        spare_stop_words: leave stop words alone, as tools do and the paper does not.
        max_changed: largest share of changed words; None = no limit.
        query_budget: most questions to the victim per word of the text; None = no limit.
    """

    same_speech: bool = True
    spare_stop_words: bool = False
    max_changed: float | None = None
    query_budget: int | None = None

    needs = ("wordnet", "stop_words", "encoder", "tagger")

    def __post_init__(self) -> None:
        check_limits(self.max_changed, self.query_budget)

    def __call__(self, goal: Goal, tools: Tools) -> Steps[Words]:
        text = goal.original
        before = yield from goal.ask([text])
        salience = yield from importance.lost(goal, before, tools.unknown)
        weights = np.exp(salience)  # softmax up to a factor; a salience lies between -1 and 1
        substitutes = yield from self._synonyms(text, tools)
        texts = [[text.exchange(i, w) for w in each] for i, each in enumerate(substitutes)]
        answers = yield from goal.ask([each for group in texts for each in group])

        gains: dict[int, tuple[float, str]] = {}
        left = iter(answers.of_label)
        for i, group in enumerate(substitutes[: len(weights)]):
            dropped = [float(before.of_label[0] - p) for _, p in zip(group, left, strict=False)]
            if dropped and max(dropped) > 0:
                k = int(np.argmax(dropped))
                gains[i] = (float(weights[i]) * dropped[k], group[k])
        order = sorted(gains, key=lambda i: (-gains[i][0], i))
        order = order[: most_changed(text, self.max_changed)]
        return (yield from exchange_in_turn(goal, order, {i: w for i, (_, w) in gains.items()}))

    def _synonyms(self, text: Words, tools: Tools) -> Steps[list[list[str]]]:
        assert tools.wordnet is not None
        kinds: Sequence[str | None] = [None] * len(text)
        if self.same_speech and "tagger" in tools.oracles:
            kinds = yield from speech.kinds(text)
        found = []
        for word, kind in zip(text.words, kinds, strict=True):
            spared = self.spare_stop_words and tools.keeps(word)
            wanted = speech.OPEN if kind is None else (kind,)
            each = [w for k in wanted for w in tools.wordnet.synonyms(word, k)]
            found.append([] if spared else list(dict.fromkeys(each)))
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
