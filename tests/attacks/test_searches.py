"""Every attack against its paper's algorithm, written out for lists of words and victims that can
be asked without it: the same text, by the same number of questions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
from attacks.victims import (
    Case,
    Constant,
    Encoding,
    Linear,
    NearTable,
    Proposing,
    Scene,
    SynonymTable,
    case,
)

from lit_adv.attacks import bugs
from lit_adv.attacks.bert_attack import BertAttack
from lit_adv.attacks.deepwordbug import DeepWordBug
from lit_adv.attacks.pwws import PWWS
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.textbugger import TextBugger
from lit_adv.attacks.textfooler import TextFooler
from lit_adv.attacks.trial import Recipe

CASES = range(60)

BARE = TextFooler(similarity=None, min_cosine=0.0)

# ---- the algorithms ------------------------------------------------------------------------------


def _without(words: Sequence[str], place: int) -> list[str]:
    return [*words[:place], *words[place + 1 :]]


def _with(words: Sequence[str], place: int, word: str) -> list[str]:
    return [*words[:place], word, *words[place + 1 :]]


def _ranked(scores: Sequence[float]) -> list[int]:
    """From the largest to the smallest; rounding does not tell equal ones apart."""
    return sorted(range(len(scores)), key=lambda i: (-round(scores[i], 12), i))


def _losses(of: Case, replacement: str | None, flips: bool = False) -> list[float]:
    """Importance of each word."""
    before, losses = of.victim.probabilities(of.words), []
    for i in range(len(of.words)):
        less = _without(of.words, i) if replacement is None else _with(of.words, i, replacement)
        after = of.victim.probabilities(less)
        c, y = int(after.argmax()), of.label
        losses.append(float(before[y] - after[y]))
        if flips and c != y:
            losses[-1] += float(after[c] - before[c])
    return losses


def _window(words: Sequence[str], place: int, size: int | None) -> list[str]:
    """As in jind11/TextFooler at d47e724, attack_classification.py; None = the whole text."""
    if size is None:
        return list(words)
    half, n = (size - 1) // 2, len(words)
    if place >= half and n - place - 1 >= half:
        start, stop = place - half, place + half + 1
    elif place < half and n - place - 1 >= half:
        start, stop = 0, size
    elif place >= half and n - place - 1 < half:
        start, stop = n - size, n
    else:
        start, stop = 0, n
    return list(words[max(0, start) : stop])


def _angular(a: Sequence[str], b: Sequence[str]) -> float:
    u, v = (Encoding().one(" ".join(words)).astype(float) for words in (a, b))
    return 1 - float(np.arccos(np.clip(u @ v, -1, 1))) / np.pi


Greedy = tuple[list[str], int]
"""The text reached, and questions asked."""


def _reference_textfooler(
    of: Case, recipe: TextFooler, alike: Callable[[list[str], list[str], int], bool]
) -> Greedy:
    """Algorithm 1. `alike`: of the words before a change and after it, and its place."""
    y, p, x = of.label, of.victim.probabilities, list(of.words)
    queries = 1 + len(x)
    for i in _ranked(_losses(of, None, recipe.flips)):
        if x[i] in of.stop_words:
            continue
        near = of.near[x[i]][: recipe.neighbours]
        texts = [_with(x, i, w) for w, cosine in near if cosine >= recipe.min_cosine]
        fit = [text for text in texts if alike(x, text, i)]
        queries += len(texts if recipe.constrain == "after" else fit)
        won = [text for text in fit if p(text).argmax() != y]
        if recipe.winners == "leading":  # none behind a text that does not win, or costs nothing
            lost = [p(text)[y] for text in fit if p(text).argmax() == y]
            won = [text for text in won if p(text)[y] < min([*lost, np.inf])]
            won = won if won and min(p(text)[y] for text in won) < p(x)[y] else []
        if won:
            if recipe.similarity is None:
                return min(won, key=lambda text: p(text)[y]), queries
            like = recipe.similarity
            reference = x if like.against == "previous" else of.words
            pieces = [[_window(t, i, like.window) for t in (reference, text)] for text in won]
            return won[int(np.argmax([_angular(*pair) for pair in pieces]))], queries
        best = min(fit, key=lambda text: p(text)[y], default=x)
        if p(best)[y] < p(x)[y]:
            x = best
    return x, queries


def _reference_bert_attack(of: Case, recipe: BertAttack) -> Greedy:
    """Algorithm 1: candidates one after the other, the first that wins ends it."""
    y, p, x = of.label, of.victim.probabilities, list(of.words)
    queries, changed = 1 + len(x), 0
    share = Fraction(1 if recipe.max_changed is None else recipe.max_changed).limit_denominator(10)
    for i in _ranked(_losses(of, "[MASK]")):
        if changed >= share * len(x) if recipe.round_up else changed + 1 > share * len(x):
            break
        if x[i] in of.stop_words:
            continue
        best = x
        for word, _ in of.near[x[i]][: recipe.candidates]:
            if word in of.stop_words or word == x[i]:
                continue
            queries += 1
            text = _with(x, i, word)
            if p(text).argmax() != y:
                return text, queries
            if p(text)[y] < p(best)[y]:
                best = text
        changed += best is not x
        x = best
    return x, queries


def _reference_pwws(of: Case) -> Greedy:
    """Equations 4 to 8 and the loop of section 3.3."""
    y, p, x = of.label, of.victim.probabilities, list(of.words)
    saliency = _losses(of, "[UNK]")
    phi = np.exp(saliency) / np.exp(saliency).sum()
    queries, best = 1 + len(x), {}
    for i, word in enumerate(x):
        texts = [_with(x, i, w) for w, _ in of.near[word]]
        queries += len(texts)
        drops = [float(p(x)[y] - p(text)[y]) for text in texts]
        if drops and max(drops) > 0:
            k = int(np.argmax(drops))
            best[i] = (phi[i] * drops[k], of.near[word][k][0])
    for i in sorted(best, key=lambda i: (-round(best[i][0], 12), i)):
        x = _with(x, i, best[i][1])
        queries += 1
        if p(x).argmax() != y:
            break
    return x, queries


def _reference_stepwise_pwws(of: Case) -> Greedy:
    """Words by softmax(1 - P without) times (1 - least P of a synonym), then the greedy search."""
    y, p, x = of.label, of.victim.probabilities, list(of.words)
    free = [i for i, word in enumerate(x) if word not in of.stop_words]
    phi = {i: np.exp(1 - p(_with(x, i, "[UNK]"))[y]) for i in free}
    queries, score = 1 + len(free), {}
    for i in free:
        left = [float(p(_with(x, i, w))[y]) for w, _ in of.near[x[i]]]
        queries += len(left)
        if left:
            score[i] = phi[i] / sum(phi.values()) * (1 - min(left))
    for i in sorted(score, key=lambda i: (-round(score[i], 12), i)):
        texts = [_with(x, i, w) for w, _ in of.near[x[i]]]
        queries += len(texts)
        best = min(texts, key=lambda text: p(text)[y])
        if p(best)[y] < p(x)[y]:
            x = best
        if p(x).argmax() != y:
            break
    return x, queries


def _reference_textbugger(of: Case, sentences: Sequence[range]) -> Greedy:
    """Algorithms 3 and 5, for words of which there are no misspellings."""
    y, p, x = of.label, of.victim.probabilities, list(of.words)
    queries = 1 + len(x) + (len(sentences) if len(sentences) > 1 else 0)
    sure = [p([x[i] for i in part]) for part in sentences]
    parts = [i for i in _ranked([q[y] for q in sure]) if sure[i].argmax() == y]
    if len(sentences) == 1 or not parts:
        parts = list(range(len(sentences)))
    ranked = _ranked(_losses(of, None))
    for i in [i for part in parts for i in ranked if i in sentences[part]]:
        texts = [_with(x, i, w) for w, _ in of.near[x[i]][:5]]
        queries += len(texts)
        won = [text for text in texts if p(text).argmax() != y]
        if won:
            return min(won, key=lambda text: p(text)[y]), queries
        best = min(texts, key=lambda text: p(text)[y], default=x)
        if p(best)[y] < p(x)[y]:
            x = best
    return x, queries


# ---- one exchange --------------------------------------------------------------------------------

RECIPES: dict[str, Callable[..., Any]] = {
    "textfooler": lambda **o: TextFooler(similarity=None, min_cosine=0.0, **o),
    "bert_attack": lambda **o: BertAttack(take="best", **o),
    "pwws": PWWS,
    "textbugger": lambda **o: TextBugger(similarity=None, **o),
}


def _scene(of: Case, **options: Any) -> Scene:
    """All that any attack needs, with the same words for each."""
    words = {word: [w for w, _ in near] for word, near in of.near.items()}
    synonyms = {(word, "NOUN"): near for word, near in words.items()}
    return Scene(
        victim=of.victim,
        near=NearTable(of.near),
        synonyms=SynonymTable(synonyms),
        others={"masked_lm": Proposing(words), **options.pop("others", {})},
        **options,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_one_exchange_is_the_best_of_all_words_and_candidates(name: str):
    """Where every word can be made to say nothing, what counts most is exchanged."""
    found = 0
    for seed in CASES:
        of = case(seed)
        of.near = {w: [("q", 0.9), *of.near[w]] for w in of.near}
        # The others say as much for the label: "q", which weighs nothing, is the best of them.
        sign = 1 if of.label else -1
        of.victim.weights = {
            w: [0.0, sign * abs(weight)] for w, (_, weight) in of.victim.weights.items()
        }
        of.words = list(dict.fromkeys(of.words))
        of.label = int(of.victim.logits(of.text).argmax())
        n = len(of.words)
        one = RECIPES[name](max_changed=1 / n)
        (record,) = _scene(of).attack(one, of.text, label=of.label)

        y, p = of.label, of.victim.probabilities
        places = product(range(n), [w for w, _ in of.near["a"]])
        texts = [_with(of.words, i, w) for i, w in places if w in dict(of.near[of.words[i]])]
        best = min(texts, key=lambda text: p(text)[y])
        if p(best)[y] < p(of.words)[y] - 1e-9:
            found += 1
            assert p(record["perturbed"].split())[y] == pytest.approx(p(best)[y], abs=1e-12)
            assert len(record["changes"]) == 1
        else:
            assert record["changes"] == []
    assert found > 20


# ---- whole searches ------------------------------------------------------------------------------


def _compare(record: dict[str, Any], of: Case, expected: Greedy) -> str:
    """The outcome, if text and questions are the expected ones."""
    words, queries = expected
    assert record["perturbed"].split() == words
    assert record["queries"] == queries
    turned = int(of.victim.probabilities(words).argmax()) != of.label
    assert record["outcome"] == ("succeeded" if turned else "failed")
    return record["outcome"]


def _both(outcomes: list[str]) -> None:
    """Attacks that always win, or never, would test little."""
    assert min(outcomes.count("succeeded"), outcomes.count("failed")) >= len(outcomes) // 8


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("flips", [True, False])
def test_textfooler(classes: int, flips: bool):
    outcomes = []
    for seed in CASES:
        of = case(seed, classes)
        recipe = TextFooler(similarity=None, min_cosine=0.5, neighbours=4, flips=flips)
        (record,) = _scene(of, stop_words=of.stop_words).attack(recipe, of.text, label=of.label)
        expected = _reference_textfooler(of, recipe, lambda before, after, place: True)
        outcomes.append(_compare(record, of, expected))
    _both(outcomes)


def _alike(like: Similarity, of: Case) -> Callable[[list[str], list[str], int], bool]:
    """The condition on sentences, by plain lists."""

    def alike(before: list[str], after: list[str], place: int) -> bool:
        threshold = like.threshold
        if like.window is not None and len(of.words) < like.window and like.short is not None:
            if like.short == "pass":
                return True
            threshold = like.short
        reference = before if like.against == "previous" else of.words
        pieces = (_window(words, place, like.window) for words in (reference, after))
        return _angular(*pieces) >= threshold

    return alike


SIMILARITIES = [
    Similarity(threshold=0.75, window=5, against="previous", short=0.6),
    Similarity(threshold=0.7, window=3, against="previous"),
    Similarity(threshold=0.7, against="original"),
    Similarity(threshold=0.6, window=5, against="original", short=0.85),
]


@pytest.mark.parametrize("constrain", ["before", "after"])
@pytest.mark.parametrize("like", SIMILARITIES)
def test_textfooler_among_similar_sentences(constrain: Any, like: Similarity):
    outcomes, kept = [], 0
    for seed in CASES:
        of = case(seed)
        recipe = TextFooler(similarity=like, min_cosine=0.0, constrain=constrain)
        scene = _scene(of, stop_words=of.stop_words, others={"encoder": Encoding()})
        (record,) = scene.attack(recipe, of.text, label=of.label)
        expected = _reference_textfooler(of, recipe, _alike(like, of))
        free = _reference_textfooler(of, BARE, lambda before, after, place: True)
        kept += expected[0] != free[0]
        outcomes.append(_compare(record, of, expected))
    _both(outcomes)
    assert kept > len(CASES) // 4  # the condition mattered


@pytest.mark.parametrize("like", SIMILARITIES[:2])
def test_textfooler_with_the_leading_winners_alone(like: Similarity):
    outcomes, otherwise = [], 0
    for seed in range(250):
        of = case(seed, 3, scale=0.25)
        options = {"similarity": like, "min_cosine": 0.0, "constrain": "before", "flips": False}
        found = []
        for winners in ("leading", "all"):
            recipe = TextFooler(**options, winners=winners)  # pyright: ignore[reportArgumentType]
            scene = _scene(of, stop_words=of.stop_words, others={"encoder": Encoding()})
            (record,) = scene.attack(recipe, of.text, label=of.label)
            found.append(_reference_textfooler(of, recipe, _alike(like, of)))
            outcomes.append(_compare(record, of, found[-1]))
        otherwise += found[0] != found[1]
    _both(outcomes)
    assert otherwise


def test_leading_winners_are_of_those_that_may_be_taken():
    with pytest.raises(ValueError, match="winners=leading: .* set constrain=before"):
        TextFooler(winners="leading")


@pytest.mark.parametrize("max_changed, round_up", [(None, False), (0.4, False), (0.3, True)])
def test_bert_attack(max_changed: float | None, round_up: bool):
    outcomes = []
    for seed in CASES:
        of = case(seed)
        recipe = BertAttack(candidates=4, max_changed=max_changed, round_up=round_up)
        (record,) = _scene(of, stop_words=of.stop_words).attack(recipe, of.text, label=of.label)
        outcomes.append(_compare(record, of, _reference_bert_attack(of, recipe)))
    _both(outcomes)


@pytest.mark.parametrize("classes", [2, 3])
def test_pwws(classes: int):
    outcomes = []
    for seed in CASES:
        of = case(seed, classes, scale=0.5)
        (record,) = _scene(of).attack(PWWS(), of.text, label=of.label)
        outcomes.append(_compare(record, of, _reference_pwws(of)))
    _both(outcomes)


@pytest.mark.parametrize("classes", [2, 3])
def test_pwws_step_by_step(classes: int):
    """As TextAttack 0.3.11 searches (`GreedyWordSwapWIR("weighted-saliency")`)."""
    outcomes, otherwise = [], 0
    recipe = PWWS(stepwise=True, spare_stop_words=True)
    for seed in CASES:
        of = case(seed, classes, scale=0.5)
        (record,) = _scene(of, stop_words=of.stop_words).attack(recipe, of.text, label=of.label)
        outcomes.append(_compare(record, of, _reference_stepwise_pwws(of)))
        otherwise += _reference_stepwise_pwws(of)[0] != _reference_pwws(of)[0]
    _both(outcomes)
    assert otherwise


UNRANKED: list[tuple[Recipe, Recipe]] = [
    (BARE, replace(BARE, rank_stop_words=False)),
    (BertAttack(candidates=3), BertAttack(candidates=3, rank_stop_words=False)),
]


@pytest.mark.parametrize("ranked, unranked", UNRANKED)
def test_without_ranking_stop_words_the_same_text_is_found_by_fewer_questions(
    ranked: Recipe, unranked: Recipe
):
    saved = 0
    for seed in CASES:
        of = case(seed)
        records = [
            _scene(of, stop_words=of.stop_words).attack(recipe, of.text, label=of.label)[0]
            for recipe in (ranked, unranked)
        ]
        assert records[0]["perturbed"] == records[1]["perturbed"]
        stopped = sum(word in of.stop_words for word in of.words)
        assert records[0]["queries"] - records[1]["queries"] == stopped
        saved += stopped
    assert saved


@pytest.mark.parametrize("ranking, hidden", [("deleted", None), ("unknown", "[UNK]")])
def test_words_are_deleted_or_unknown_for_the_ranking(ranking: Any, hidden: str | None):
    of = case(4, classes=3)  # whose words are all different: none is asked for twice
    places = range(len(of.words))
    texts = [
        _without(of.words, i) if hidden is None else _with(of.words, i, hidden) for i in places
    ]
    for recipe in (replace(BARE, ranking=ranking), DeepWordBug(change="any", ranking=ranking)):
        scene = _scene(of)
        scene.attack(recipe, of.text, label=of.label)
        assert scene.victim.asked[: 1 + len(texts)] == [of.text, *map(" ".join, texts)]


@pytest.mark.parametrize("ranks", [True, False])
def test_textbugger_exchanges_words_sentence_by_sentence(ranks: bool):
    outcomes, moved = [], 0
    for seed in CASES:
        of = case(seed, longest=12)
        random = Random(seed)
        ends = sorted(random.sample(range(1, len(of.words)), min(2, len(of.words) - 1)))
        parts = [range(a, b) for a, b in zip([0, *ends], [*ends, len(of.words)], strict=True)]
        text = " ".join(f"{' '.join(of.words[part.start : part.stop])}." for part in parts)
        recipe = TextBugger(similarity=None, sentences=ranks)
        (record,) = _scene(of).attack(recipe, text, label=of.label)
        record["perturbed"] = record["perturbed"].replace(".", "")
        whole = [range(len(of.words))]
        expected = _reference_textbugger(of, parts if ranks else whole)
        moved += expected[0] != _reference_textbugger(of, whole)[0]
        outcomes.append(_compare(record, of, expected))
    _both(outcomes)
    assert moved > 5 or not ranks


# ---- misspellings --------------------------------------------------------------------------------

LONG: tuple[str, ...] = (
    "wonderful",
    "film",
    "so",
    "dreary",
    "plot",
    "lively",
    "a",
    "dull",
    "mess",
    "cast",
)


def _sentence(seed: int) -> Case:
    """Words that are unknown, and weigh nothing, as soon as they are misspelt."""
    random = Random(seed)
    weights = {word: [0.0, random.choice([-1, 1]) * random.uniform(0.2, 1)] for word in LONG}
    victim = Linear(weights, [0.0, random.choice([-0.7, 0.7])])
    words = random.sample(LONG, random.randint(3, 8))
    return Case(words, int(victim.logits(" ".join(words)).argmax()), victim, {}, frozenset())


def _for_label(of: Case, word: str) -> float:
    """What this word says for the label."""
    return of.victim.weights[word][1] * (1 if of.label else -1)


def _bugs(word: str) -> int:
    """How many kinds of TextBugger's misspellings a word of different letters has."""
    n = len(word)
    return (2 <= n < 6) + (n >= 3) + (n > 4) + (n >= 2)


def test_textbugger_misspells_what_speaks_for_the_label():
    outcomes = []
    for seed in CASES:
        of = _sentence(seed)
        (record,) = Scene(victim=of.victim).attack(
            TextBugger(similarity=None), of.text, label=of.label
        )
        x, queries = list(of.words), 1 + len(of.words)
        for i in _ranked(_losses(of, None)):
            queries += _bugs(x[i])
            if _for_label(of, x[i]) > 0 and len(x[i]) > 1:
                x[i] = "?"
            if of.victim.probabilities(x).argmax() != of.label:
                break
        changed = [i for i, word in enumerate(x) if word == "?"]
        assert [change["place"] for change in record["changes"]] == changed
        assert record["queries"] == queries
        for change in record["changes"]:
            word = change["from"]
            kinds = (bugs.insert_space, bugs.delete, bugs.swap, bugs.look_alike, bugs.keyboard)
            assert any(change["to"] in kind(word) for kind in kinds)
        outcomes.append(record["outcome"])
    _both(outcomes)


def test_the_bug_that_costs_the_label_most_is_taken():
    """Misspelt words weigh what they are, not nothing."""
    for seed in range(10):
        of = _sentence(seed)
        probe = Scene(victim=Constant(1.0 - of.label, 1.0 * of.label))
        probe.attack(TextBugger(similarity=None), of.text, label=of.label)
        asked = [text.split() for text in probe.victim.asked[1 + len(of.words) :]]
        known = set(of.words)
        odd = sorted({w for text in asked for w in text if w not in known and len(w) > 1})
        random = Random(seed)
        heavier = {w.lower(): [0.0, random.uniform(-2, 2)] for w in odd}
        victim = Linear({**of.victim.weights, **heavier}, of.victim.bias)
        (record,) = Scene(victim=victim).attack(
            TextBugger(similarity=None), of.text, label=of.label
        )
        for change in record["changes"]:
            i = change["place"]
            mine = [t for t in probe.victim.asked[1 + len(of.words) :] if _differs(t, of.words, i)]
            taken = " ".join(_with(of.words, i, change["to"]))
            assert taken in mine and len(mine) == _bugs(change["from"])
            left = {text: victim.probabilities(text.split())[of.label] for text in mine}
            assert left[taken] == pytest.approx(min(left.values()))


def _differs(text: str, words: Sequence[str], place: int) -> bool:
    """Whether only the word at this place is another; spaces may be in it."""
    before, behind = " ".join(words[:place]), " ".join(words[place + 1 :])
    return text.startswith(f"{before} ".lstrip()) and text.endswith(f" {behind}".rstrip())


def _combined(of: Case, tail: float) -> list[float]:
    """F(x_1 .. x_i) - F(x_1 .. x_{i-1}) + tail (F(x_i .. x_n) - F(x_{i+1} .. x_n))."""
    x = of.words
    heads = [of.victim.probabilities(x[:i])[of.label] for i in range(len(x) + 1)]
    tails = [of.victim.probabilities(x[i:])[of.label] for i in range(len(x) + 1)]
    return [
        float(heads[i + 1] - heads[i] + tail * (tails[i] - tails[i + 1])) for i in range(len(x))
    ]


@pytest.mark.parametrize("change", ["swap", "substitute", "delete", "insert"])
@pytest.mark.parametrize("tail", [1.0, 0.0])
def test_deepwordbug_misspells_word_after_word_until_the_edits_are_used_up(
    change: Any, tail: float
):
    outcomes, used_up = [], 0
    for seed in CASES:
        of = _sentence(seed)
        recipe = DeepWordBug(change=change, tail=tail, edits=5)
        (record,) = Scene(victim=of.victim).attack(recipe, of.text, label=of.label)
        x, left, queries = list(of.words), 5, 1 + 2 * (len(of.words) + 1)
        for i in _ranked(_combined(of, tail)):
            cost = 2 if change == "swap" else 1
            if len(x[i]) < 2 or cost > left:
                used_up += cost > left
                continue
            x[i], left, queries = "?", left - cost, queries + 1
            if of.victim.probabilities(x).argmax() != of.label:
                break
        assert [c["place"] for c in record["changes"]] == [i for i, w in enumerate(x) if w == "?"]
        assert record["queries"] == queries
        edits = [bugs.edit_distance(c["from"], c["to"]) for c in record["changes"]]
        assert sum(edits) == 5 - left
        outcomes.append(record["outcome"])
    _both(outcomes)
    assert used_up


@pytest.mark.parametrize("ranking", ["deleted", "unknown"])
def test_deepwordbug_with_any_change_is_greedy(ranking: Any):
    outcomes = []
    for seed in CASES:
        of = _sentence(seed)
        of.victim.weights = {**of.victim.weights, "[unk]": [0.0, 0.3]}
        recipe = DeepWordBug(change="any", ranking=ranking, edits=5)
        (record,) = Scene(victim=of.victim).attack(recipe, of.text, label=of.label)
        x, left, queries = list(of.words), 5, 1 + len(of.words)
        for i in _ranked(_losses(of, None if ranking == "deleted" else "[UNK]")):
            if len(x[i]) < 2 or not left:
                continue
            queries += 4 if left >= 2 else 3  # a swap is two edits, and the first of the four
            if _for_label(of, x[i]) > 0:
                x[i], left = "?", left - (2 if left >= 2 else 1)
            if of.victim.probabilities(x).argmax() != of.label:
                break
        assert [c["place"] for c in record["changes"]] == [i for i, w in enumerate(x) if w == "?"]
        assert record["queries"] == queries
        outcomes.append(record["outcome"])
    _both(outcomes)


# ---- victims that say the same of every text -----------------------------------------------------


def _constant(seed: int) -> tuple[Case, Scene]:
    of = case(seed, longest=12)
    scene = _scene(of, stop_words=of.stop_words)
    scene.victim = Constant(0.0, 1.0)
    return of, scene


@pytest.mark.parametrize("seed", range(5))
def test_a_constant_victim_is_asked_for_every_candidate_in_vain(seed: int):
    of, scene = _constant(seed)
    n = len(of.words)
    near = [len(of.near[w]) for w in of.words]
    free = [len(of.near[w]) for w in of.words if w not in of.stop_words]
    proposed = [
        sum(other not in of.stop_words for other, _ in of.near[w])
        for w in of.words
        if w not in of.stop_words
    ]
    glyphs = [len(w) for w in of.words]
    counts: list[tuple[Recipe, int]] = [
        (BARE, 1 + n + sum(free)),
        (BertAttack(max_changed=None), 1 + n + sum(proposed)),
        (BertAttack(take="best", max_changed=1.0), 1 + n + sum(proposed)),
        (PWWS(), 1 + n + sum(near)),
        (TextBugger(), 1 + n + sum(near)),
        (TextBugger(spare_stop_words=True), 1 + len(free) + sum(free)),
        (TextBugger(bugs="textattack", sentences=False), 1 + n + sum(near) + sum(glyphs)),
        (replace(BARE, rank_stop_words=False), 1 + len(free) + sum(free)),
        (BertAttack(max_changed=None, rank_stop_words=False), 1 + len(free) + sum(proposed)),
        (DeepWordBug(change="any", spare_stop_words=True), 1 + 2 * (n + 1)),
        (DeepWordBug(change="any", ranking="unknown", spare_stop_words=True), 1 + len(free)),
        (PWWS(stepwise=True, spare_stop_words=True), 1 + len(free) + 2 * sum(free)),
        (TextFooler(similarity=None, max_changed=0.0), 1 + n),
    ]
    for recipe, queries in counts:
        (record,) = scene.attack(recipe, of.text, label=1)
        assert record["outcome"] == "failed" and record["perturbed"] == of.text
        assert record["queries"] == queries == scene.engine.asked["victim"], recipe
        assert record["changes"] == [] and record["changed"] == 0
    three = ". ".join([of.text] * 3)
    (record,) = scene.attack(TextBugger(), three, label=1)
    assert record["queries"] == 1 + 3 + 3 * n + 3 * sum(near) and not record["changes"]


def test_against_a_constant_victim_deepwordbug_misspells_all_it_may():
    text = " ".join(LONG)  # of which "a" is too short
    (record,) = Scene(victim=Constant(1.0, 0.0)).attack(DeepWordBug(edits=4), text)
    assert record["outcome"] == "failed" and record["queries"] == 1 + 2 * 11 + 4
    assert [change["place"] for change in record["changes"]] == [0, 1, 2, 3]
    (record,) = Scene(victim=Constant(1.0, 0.0)).attack(DeepWordBug(), text)
    assert record["queries"] == 1 + 2 * 11 + 9 and len(record["changes"]) == 9
    (record,) = Scene(victim=Constant(1.0, 0.0)).attack(DeepWordBug(change="any"), text)
    assert record["queries"] == 1 + 2 * 11 + 9 * 4 and record["changes"] == []


# ---- what is not so in full precision ------------------------------------------------------------


def test_a_success_that_full_precision_denies_is_none():
    """The attack goes on behind it, and takes another if full precision agrees with that."""
    weights = {"bad": [1.0, 0.0], "poor": [0.0, 2.0], "weak": [0.0, 3.0], "film": [0.1, 0.0]}
    quick = Linear(weights, [0.2, 0.0])
    near = NearTable({"bad": [("poor", 0.9), ("weak", 0.8)], "film": [("movie", 0.9)]})
    words = Proposing({"bad": ["poor", "weak"], "film": ["movie"]})
    synonyms = SynonymTable({("bad", "ADJ"): ["poor", "weak"], ("film", "NOUN"): ["movie"]})
    scene = Scene(victim=quick, near=near, synonyms=synonyms, others={"masked_lm": words})
    recipes = [BARE, BertAttack(max_changed=None), PWWS(), TextBugger(similarity=None)]
    for recipe in recipes:
        scene.exact = None
        (record,) = scene.attack(recipe, "bad film")
        taken = "poor film" if isinstance(recipe, BertAttack) else "weak film"
        assert (record["outcome"], record["perturbed"]) == ("succeeded", taken)

        scene.exact = Constant(1.0, 0.0)
        (record,) = scene.attack(recipe, "bad film")
        assert (record["outcome"], record["new_prediction"]) == ("failed", 0)
        if not isinstance(recipe, TextBugger):  # "movie" costs the label more than a bug of "film"
            assert record["perturbed"] == "weak movie"

        scene.exact = Linear({**weights, "weak": [0.5, 0.0]}, [0.2, 0.0])
        (record,) = scene.attack(recipe, "bad film")
        if not isinstance(recipe, PWWS):  # it has but one candidate per word
            assert (record["outcome"], record["perturbed"]) == ("succeeded", "poor film")


def test_what_is_reached_counts_in_full_precision():
    """A success that the quick victim does not see is one all the same, and a clean error too."""
    scene = Scene(victim=Constant(1.0, 0.0), near=NearTable({}))
    scene.exact = Linear({"good": [0.0, 1.0]}, [0.5, 0.0])
    (record,) = scene.attack(BARE, "a good film")
    assert record == {"outcome": "misclassified", "prediction": 1}
    scene.exact = Linear({"dull": [1.0, 0.0]}, [0.0, 0.5])
    (record,) = scene.attack(DeepWordBug(edits=1), "dull")
    assert (record["outcome"], record["prediction"], record["new_prediction"]) == (
        "succeeded",
        0,
        1,
    )
