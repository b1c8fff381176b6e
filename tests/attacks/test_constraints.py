"""Each condition alone: which words are changed, how many, for how many questions, by what."""

from collections import Counter
from collections.abc import Callable
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
    Tagging,
    case,
)

from lit_adv.attacks.bert_attack import BertAttack
from lit_adv.attacks.deepwordbug import DeepWordBug
from lit_adv.attacks.pwws import PWWS
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.textbugger import TextBugger, sentences
from lit_adv.attacks.textfooler import TextFooler
from lit_adv.attacks.trial import Recipe
from lit_adv.attacks.words import Words

SEEDS = range(25)

LIKE = Similarity(threshold=0.7, window=5, against="previous", short=0.6)

# Word attacks, and those that never touch stop words.
ATTACKS: dict[str, Callable[..., Any]] = {
    "textfooler": lambda **o: TextFooler(similarity=None, min_cosine=0.0, **o),
    "textfooler_before": lambda **o: TextFooler(
        similarity=LIKE, min_cosine=0.0, constrain="before", **o
    ),
    "textfooler_after": lambda **o: TextFooler(similarity=LIKE, min_cosine=0.0, **o),
    "bert_attack": lambda **o: BertAttack(**{"max_changed": None, **o}),
    "bert_attack_best": lambda **o: BertAttack(
        **{"max_changed": None, "take": "best", "similarity": LIKE, **o}
    ),
    "pwws": lambda **o: PWWS(spare_stop_words=True, **o),
    "textbugger": lambda **o: TextBugger(similarity=None, spare_stop_words=True, **o),
    "textbugger_skip": lambda **o: TextBugger(
        similarity=LIKE, dissimilar="skip", spare_stop_words=True, **o
    ),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def _scene(of: Case, **options: Any) -> Scene:
    words = {word: [w for w, _ in near] for word, near in of.near.items()}
    others = {"masked_lm": Proposing(words), "encoder": Encoding()}
    return Scene(
        victim=of.victim,
        near=NearTable(of.near),
        synonyms=SynonymTable({(word, "NOUN"): near for word, near in words.items()}),
        others=others,
        **{"stop_words": of.stop_words, **options},
    )


# ---- which words, and how many -------------------------------------------------------------------


@every_attack
def test_stop_words_stay_whatever_their_case(name: str):
    changed = 0
    for seed in SEEDS:
        of = case(seed)
        upper = frozenset(word.upper() for word in of.stop_words)
        (record,) = _scene(of, stop_words=upper).attack(ATTACKS[name](), of.text, label=of.label)
        assert not {change["from"] for change in record["changes"]} & of.stop_words
        changed += len(record["changes"])
    assert changed > 20


def test_papers_that_do_not_spare_stop_words_change_them():
    for recipe in (PWWS(), TextBugger(similarity=None)):
        of = case(0)
        (record,) = _scene(of, stop_words=frozenset(of.words)).attack(
            recipe, of.text, label=of.label
        )
        assert record["changes"]
    (record,) = Scene(victim=Constant(1, 0), stop_words=frozenset({"dull", "film"})).attack(
        DeepWordBug(spare_stop_words=True), "dull film indeed"
    )
    assert [change["from"] for change in record["changes"]] == ["indeed"]


@every_attack
def test_no_place_is_changed_twice(name: str):
    """Neighbours are looked up for the original's words, each place once."""
    for seed in SEEDS:
        of = case(seed)
        scene = _scene(of)
        (record,) = scene.attack(ATTACKS[name](), of.text, label=of.label)
        assert scene.near is not None
        assert not Counter(scene.near.asked) - Counter(of.words)
        for change in record["changes"]:
            assert change["to"] in dict(of.near[change["from"]])


@every_attack
@pytest.mark.parametrize("share", [0.0, 0.2, 0.29, 0.3, 0.5, 1.0])
def test_no_more_words_are_changed_than_may_be(name: str, share: float):
    full = 0
    for seed in SEEDS:
        of = case(seed, longest=14)
        (record,) = _scene(of).attack(ATTACKS[name](max_changed=share), of.text, label=of.label)
        most = round(100 * share) * len(of.words) // 100  # in whole numbers: 0.29 of 100 is 29
        assert len(record["changes"]) <= most
        assert record["changed"] == len(record["changes"]) / len(of.words)
        full += len(record["changes"]) == most
    assert full or share == 1  # the bound is reached


def test_a_share_of_words_is_rounded_down_exactly():
    """0.29 x 100 is less than 29 in floating point."""
    for n in (10, 100):
        text = " ".join(["dull"] * n)
        for share in (0.1, 0.29, 0.3, 0.7):
            scene = Scene(
                victim=Linear({"dull": [1 / 32, 0.0]}, [4.0, 0.0]),
                near=NearTable({"dull": [("drab", 0.9)]}),
            )
            recipe = TextFooler(similarity=None, max_changed=share)
            (record,) = scene.attack(recipe, text)
            assert len(record["changes"]) == round(100 * share) * n // 100


@pytest.mark.parametrize("recipe", [TextFooler, BertAttack, TextBugger, PWWS])
@pytest.mark.parametrize("share", [-0.1, 30, "half", True, float("nan")])
def test_a_share_that_is_none_is_refused(recipe: Callable[..., Any], share: Any):
    with pytest.raises(ValueError, match=r"attack\.max_changed="):
        recipe(max_changed=share)


@pytest.mark.parametrize("recipe", [TextFooler, BertAttack, TextBugger, PWWS, DeepWordBug])
@pytest.mark.parametrize("budget", [0, -1, 2.5])
def test_a_budget_that_is_none_is_refused(recipe: Callable[..., Any], budget: Any):
    with pytest.raises(ValueError, match=r"attack\.query_budget="):
        recipe(query_budget=budget)


# ---- the budget ----------------------------------------------------------------------------------

BUDGETED = {
    **ATTACKS,
    "deepwordbug": lambda **o: DeepWordBug(**o),
    "deepwordbug_any": lambda **o: DeepWordBug(change="any", ranking="deleted", **o),
}


@pytest.mark.parametrize("name", BUDGETED)
def test_the_budget_is_spent_exactly_if_it_is_needed(name: str):
    """Questions are the unlimited attack's or the budget; in the first case so is the text."""
    short = 0
    for seed in SEEDS:
        of = case(seed)
        if "deepwordbug" in name:
            of.words = [word * 3 + "x" for word in of.words]
            of.victim.weights = {w * 3 + "x": v for w, v in of.victim.weights.items()}
        (free,) = _scene(of).attack(BUDGETED[name](), of.text, label=of.label)
        for each in (1, 2, 3, 5):
            recipe, scene = BUDGETED[name](query_budget=each), _scene(of)
            (record,) = scene.attack(recipe, of.text, label=of.label)
            assert record["queries"] == min(free["queries"], each * len(of.words))
            # Texts that one by one had not come up are asked for, but beyond no budget.
            assert scene.engine.asked["victim"] <= each * len(of.words)
            if record["queries"] < each * len(of.words):
                assert record["perturbed"] == free["perturbed"]
            short += record["queries"] < free["queries"]
    assert short > 20


@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_that_ends_in_the_ranking_leaves_the_text_alone(name: str):
    """One question per word: the text itself and all of its words but the last."""
    for n in (1, 2, 7):
        text = " ".join(["dull"] * n)
        scene = Scene(
            victim=Linear({"dull": [1.0, 0.0]}, [0.5, 0.0]),
            near=NearTable({"dull": [("drab", 0.9)]}),
            synonyms=SynonymTable({("dull", "ADJ"): ["drab"]}),
            others={"masked_lm": Proposing({"dull": ["drab"]}), "encoder": Encoding()},
        )
        (record,) = scene.attack(BUDGETED[name](query_budget=1), text)
        assert (record["outcome"], record["perturbed"]) == ("failed", text)
        assert record["queries"] == n and record["similarity"] is None


def test_a_budget_that_ends_among_candidates_takes_the_best_of_those_asked():
    weights = {"dull": [1.0, 0.0], "drab": [0.5, 0.0], "grey": [0.2, 0.0], "gay": [0.0, 3.0]}
    near = NearTable({"dull": [("drab", 0.9), ("grey", 0.8), ("gay", 0.7)]})
    scene = Scene(victim=Linear(weights, [0.6, 0.0]), near=near)
    reached = []
    for budget in (2, 3, 4, 5, 6):
        recipe = TextFooler(similarity=None, query_budget=budget)
        (record,) = scene.attack(recipe, "dull")
        assert record["queries"] == min(budget, 5)
        reached.append(record["perturbed"])
    assert reached == ["dull", "drab", "grey", "gay", "gay"]


# ---- parts of speech -----------------------------------------------------------------------------


def test_only_words_of_the_same_part_of_speech_stand_for_each_other():
    tags = dict(
        zip("abcdefgh", ["NOUN", "VERB", "ADJ", "ADV", "NOUN", "PRON", "VERB", "ADJ"], strict=True),
        zz="NOUN",
    )
    near = NearTable({word: [(o, 0.9) for o in "abcdefgh" if o != word] for word in "abcdefgh"})
    tagger = Tagging(tags)
    scene = Scene(victim=Constant(1.0, 0.0), near=near, others={"tagger": tagger})
    recipe = TextFooler(similarity=None, query_budget=None)
    for word, fitting in {"a": "beg", "b": "aeg", "c": "h", "d": "", "f": ""}.items():
        scene.victim.asked.clear()
        scene.attack(recipe, f"zz {word}")
        assert scene.victim.asked[3:] == [f"zz {other}" for other in fitting]
    # The tags are those at the word's place of the whole text.
    whole = tagger.asked[-1]
    assert (whole.words, whole.place) == (("zz", "f"), 1)
    assert whole.candidates == ("f", *"abcdegh")

    scene.victim.asked.clear()
    scene.attack(TextFooler(similarity=None, same_speech=False), "zz d")
    assert len(scene.victim.asked) == 3 + 7
    scene.others = {}  # nor without a tagger
    scene.attack(recipe, "zz d")
    assert scene.engine.asked["victim"] == 3 + 7


def test_tags_are_those_of_the_text_as_it_is_by_then():
    tags = Tagging(
        {"dull": "ADJ", "drab": "ADJ", "film": "NOUN", "movie": "NOUN", "picture": "NOUN"}
    )
    near = NearTable({"dull": [("drab", 0.9)], "film": [("movie", 0.9), ("picture", 0.8)]})
    victim = Linear({"dull": [1.0, 0.0], "film": [0.5, 0.0]}, [9.0, 0.0])
    scene = Scene(victim=victim, near=near, others={"tagger": tags})
    scene.attack(TextFooler(similarity=None), "dull film")
    assert [(asked.words, asked.place) for asked in tags.asked] == [
        (("dull", "film"), 0),
        (("drab", "film"), 1),
    ]


def test_pwws_looks_synonyms_up_as_the_words_part_of_speech():
    table = {
        ("run", "NOUN"): ["dash"],
        ("run", "VERB"): ["flow"],
        ("fast", "ADV"): ["quick"],
        ("fast", "ADJ"): ["firm"],
        ("the", "DET"): [],
    }
    tags = Tagging({"run": "VERB", "fast": "ADV", "the": "DET"})
    scene = Scene(victim=Constant(1.0, 0.0), synonyms=SynonymTable(table), others={"tagger": tags})
    scene.attack(PWWS(), "the run fast")
    assert scene.victim.asked[4:] == ["the flow fast", "the run quick"]
    for recipe, others in ((PWWS(same_speech=False), {"tagger": tags}), (PWWS(), {})):
        scene.others, scene.victim = others, Constant(1.0, 0.0)
        scene.attack(recipe, "the run fast")
        expected = ["the dash fast", "the flow fast", "the run firm", "the run quick"]
        assert scene.victim.asked[4:] == expected


# ---- similarity ----------------------------------------------------------------------------------


def _on_a_circle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


CIRCLE = {"dull film": 0.0, "drab film": 40.0, "grey film": -60.0, "poor film": 80.0}


@pytest.mark.parametrize("constrain", ["before", "after"])
@pytest.mark.parametrize(
    "metric, threshold, fitting",
    [
        ("angular", 1 - 39 / 180, ""),
        ("angular", 1 - 41 / 180, "drab"),
        ("angular", 1 - 61 / 180, "drab grey"),
        ("angular", 1 - 81 / 180, "drab grey poor"),
        ("cosine", 0.77, ""),
        ("cosine", 0.76, "drab"),
        ("cosine", 0.49, "drab grey"),
        ("cosine", 0.17, "drab grey poor"),
    ],
)
def test_what_turns_the_victim_has_to_be_similar_enough(
    constrain: Any, metric: Any, threshold: float, fitting: str
):
    """Of those that are, the most alike is taken; of losers, the one that costs the label most."""
    near = NearTable({"dull": [("poor", 0.9), ("grey", 0.8), ("drab", 0.7)]})
    encoder = Encoding({text: _on_a_circle(angle) for text, angle in CIRCLE.items()})
    like = Similarity(threshold=threshold, metric=metric)
    recipe = TextFooler(similarity=like, constrain=constrain)
    won = {"drab": [0.0, 1.0], "grey": [0.0, 2.0], "poor": [0.0, 3.0], "dull": [1.0, 0.0]}
    lost = {"drab": [0.0, 1.0], "grey": [0.0, 2.0], "poor": [0.0, 3.0], "dull": [1.0, 0.0]}
    for weights, bias, pick in ((won, 0.5, 0), (lost, 9.0, -1)):
        scene = Scene(victim=Linear(weights, [bias, 0.0]), near=near, others={"encoder": encoder})
        (record,) = scene.attack(recipe, "dull film")
        taken = fitting.split()[pick] if fitting else "dull"
        assert record["perturbed"] == f"{taken} film"
        asked = len(fitting.split()) if constrain == "before" else 3
        assert record["queries"] == 1 + 2 + asked
        if fitting:
            angle = np.radians(CIRCLE[record["perturbed"]])
            assert record["similarity"] == pytest.approx(np.cos(angle), abs=1e-6)


@pytest.mark.parametrize("against", ["previous", "original"])
def test_whole_texts_or_windows_are_compared_with_before_or_with_the_original(against: Any):
    words = ["a", "b", "c", "d", "e", "f", "g"]
    near = NearTable({word: [(word.upper(), 0.9)] for word in words})
    weights = {word: [i / 8 + 0.1, 0.0] for i, word in enumerate(words)}
    # In capitals they weigh the same in `Linear`: so a victim that tells them apart.
    victim = Linear(weights, [99.0, 0.0])
    victim.logits = lambda item: np.array([99.0 + sum(map(str.islower, str(item))), 0.0])

    encoder = Encoding()
    scene = Scene(victim=victim, near=near, others={"encoder": encoder})
    like = Similarity(threshold=-1.0, metric="cosine", window=3, against=against)
    recipe = TextFooler(similarity=like, constrain="before")
    (record,) = scene.attack(recipe, " ".join(words), temperature=100.0)
    assert record["perturbed"] == "A B C D E F G"  # equally important: from left to right
    previous = "a b c,a b c|A b c,A B c|B c d,B C d|C d e,C D e|D e f,D E f|E f g,E F g|E F g,E F G"
    original = "a b c,A b c|a b c,A B c|b c d,B C d|c d e,C D e|d e f,D E f|e f g,E F g|e f g,E F G"
    pairs = previous.replace("a b c,a b c", "a b c,A b c") if against == "previous" else original
    texts = [*dict.fromkeys(text for pair in pairs.split("|") for text in pair.split(","))]
    assert encoder.asked == [*texts, "a b c d e f g", "A B C D E F G"]

    encoder.asked.clear()
    like = Similarity(threshold=-1.0, metric="cosine", against=against)
    scene.attack(TextFooler(similarity=like, constrain="before"), "a b", temperature=100.0)
    assert encoder.asked == ["a b", "A b", "A B"]


@pytest.mark.parametrize("recipe", ["textfooler", "textbugger_stop", "textbugger_skip"])
@pytest.mark.parametrize("constrain", ["before", "after"])
def test_short_texts_have_a_threshold_of_their_own_or_are_not_looked_at(
    recipe: str, constrain: Any
):
    def make(short: Any) -> Recipe:
        like = Similarity(threshold=0.99, window=3, short=short)
        if recipe == "textfooler":
            return TextFooler(similarity=like, constrain=constrain)
        dissimilar: Any = recipe.split("_")[1]
        return TextBugger(
            similarity=like, dissimilar=dissimilar, constrain=constrain, spare_stop_words=True
        )

    table = {"d film": 0.0, "p film": 60.0, "d film is": 0.0, "p film is": 60.0}
    circle = {text: _on_a_circle(angle) for text, angle in table.items()}
    scene = Scene(
        victim=Linear({"d": [1.0, 0.0], "p": [0.0, 1.0]}, [0.5, 0.0]),
        near=NearTable({"d": [("p", 0.9)]}),
        stop_words=frozenset({"film", "is"}),
    )
    at_60 = 1 - 60 / 180
    turned = {None: 0, at_60 + 0.01: 0, at_60 - 0.01: 1, "pass": 1, 0: 1}
    for short, fits in turned.items():
        for text, fitting in (("d film", fits), ("d film is", 0)):
            scene.others = {"encoder": Encoding(circle)}
            (record,) = scene.attack(make(short), text)
            assert (record["outcome"] == "succeeded") == bool(fitting), (short, text)


@pytest.mark.parametrize("name", ["textfooler", "textbugger_skip"])
def test_looking_before_or_after_comes_to_the_same_text(name: str):
    fewer = less = 0
    for seed in range(80):
        of = case(seed, classes=2 + seed % 2, longest=12)
        records, scenes = {}, {}
        for constrain in ("before", "after"):
            choices: Any = {"similarity": LIKE, "min_cosine": 0.0, "constrain": constrain}
            recipe = TextFooler(**choices)
            if name == "textbugger_skip":
                recipe = TextBugger(dissimilar="skip", **choices)
            scenes[constrain] = _scene(of)
            (records[constrain],) = scenes[constrain].attack(recipe, of.text, label=of.label)
        before, after = records["before"], records["after"]
        assert before["perturbed"] == after["perturbed"]
        assert before["outcome"] == after["outcome"]
        assert before["queries"] <= after["queries"]
        fewer += before["queries"] < after["queries"]
        encoded = {k: scene.engine.answered["encoder"] for k, scene in scenes.items()}
        assert encoded["after"] <= encoded["before"]
        less += encoded["after"] < encoded["before"]
    assert fewer > 10 and less > 10


def test_textbugger_gives_up_a_text_that_is_no_longer_similar_or_skips_the_bug():
    table = {"d f": 0.0, "p f": 50.0, "q f": 10.0, "d m": 10.0, "q m": 20.0, "p m": 60.0}
    circle = {text: _on_a_circle(angle) for text, angle in table.items()}
    weights = {"d": [2.0, 0.0], "p": [0.0, 0.0], "q": [0.5, 0.0], "f": [0.5, 0.0], "m": [0.0, 0.1]}
    near = NearTable({"d": [("p", 0.9), ("q", 0.8)], "f": [("m", 0.9)]})
    like = Similarity(threshold=0.8, metric="cosine")  # 37 degrees

    def reached(dissimilar: Any, bias: float, like: Similarity | None) -> tuple[str, str, int]:
        scene = Scene(
            victim=Linear(weights, [bias, 0.0]),
            near=near,
            others={"encoder": Encoding(circle)},
        )
        (record,) = scene.attack(TextBugger(similarity=like, dissimilar=dissimilar), "d f")
        return record["outcome"], record["perturbed"], record["queries"]

    # "p" costs the label most, and is too far away whether it turns the victim or not.
    for bias in (0.05, -0.55):
        assert reached("stop", bias, like) == ("failed", "d f", 3 + 2)
    assert reached("stop", 0.05, None) == ("succeeded", "p m", 3 + 2 + 1)
    assert reached("skip", 0.05, like) == ("failed", "q m", 3 + 2 + 1)
    assert reached("skip", -0.55, like) == ("succeeded", "q m", 3 + 2 + 1)
    assert reached("stop", -0.55, None) == ("succeeded", "p f", 3 + 2)

    # What was changed before is given up too.
    near.table = {"d": [("q", 0.8)], "f": [("m", 0.9)]}
    circle["q m"] = _on_a_circle(50.0)
    assert reached("stop", 9.0, like) == ("failed", "d f", 3 + 1 + 1)
    assert reached("skip", 9.0, like) == ("failed", "q f", 3 + 1 + 1)


def test_what_a_similarity_cannot_be_is_refused():
    for wrong in (
        {"threshold": -2.0},
        {"metric": "euclid"},
        {"against": "first"},
        {"short": "skip"},
        {"window": 0},
        {"window": 2.5},
    ):
        (key,) = wrong
        options: Any = {"threshold": 0.5, **wrong}
        with pytest.raises(ValueError, match=rf"similarity\.{key}="):
            Similarity(**options)
    with pytest.raises(ValueError, match="attack.take=first: takes no similarity"):
        BertAttack(similarity=Similarity(threshold=0.5))


# ---- candidates ----------------------------------------------------------------------------------


def test_neighbours_are_cut_by_number_and_by_cosine():
    near = NearTable({"d": [("p", 0.9), ("q", 0.7), ("r", 0.5), ("s", 0.3)]})
    for recipe, asked in (
        (TextFooler(similarity=None), "pqr"),
        (TextFooler(similarity=None, min_cosine=0.0), "pqrs"),
        (TextFooler(similarity=None, min_cosine=0.0, neighbours=2), "pq"),
        (TextFooler(similarity=None, min_cosine=0.51), "pq"),
        (TextBugger(similarity=None, neighbours=3), "pqr"),
        (TextBugger(similarity=None, min_cosine=0.6), "pq"),
        (TextBugger(similarity=None, neighbours=0), ""),
    ):
        scene = Scene(victim=Constant(1.0, 0.0), near=near)
        scene.attack(recipe, "d")
        assert scene.victim.asked[2:] == list(asked)


def test_what_a_masked_language_model_proposes_is_sifted():
    """No stop words, not the word itself in other letters, no two words, no antonyms."""
    proposed = ["Good", "the", "The", "fine", "two words", "bad", "odd", "new"]
    near = NearTable({"good": [("fine", 0.8), ("bad", 0.3), ("new", 0.4)]})
    for least, known, asked in (
        (None, near, ["fine", "bad", "odd", "new"]),
        (0.4, near, ["fine", "odd", "new"]),
        (0.4, None, ["fine", "bad", "odd", "new"]),
    ):
        words = Proposing({"good": proposed})
        scene = Scene(
            victim=Constant(1.0, 0.0),
            near=known,
            others={"masked_lm": words},
            stop_words=frozenset({"the"}),
        )
        scene.attack(BertAttack(min_cosine=least, max_changed=None), "the good, one")
        texts = [f"the {word}, one" for word in asked]
        assert scene.victim.asked[4:] == texts
        (question,) = words.asked
        assert question.words == ("the", "good", ",", "one")
        assert sorted(question.places) == [1, 3] and question.k == 48


def test_bert_attack_hides_words_behind_the_mask_or_the_unknown_token():
    for mask, token in (("mask", "[MASK]"), ("unknown", "[UNK]")):
        choice: Any = mask
        scene = Scene(victim=Constant(1.0, 0.0), others={"masked_lm": Proposing({})})
        scene.attack(BertAttack(mask=choice), "so dull!")
        assert scene.victim.asked == ["so dull!", f"{token} dull!", f"so {token}!"]


# ---- sentences -----------------------------------------------------------------------------------


def test_textbugger_begins_with_the_sentence_that_speaks_most_for_the_label():
    """And leaves out those of another class, until there is no other."""
    weights = {w: [x, 0.0] for w, x in zip("abcdef", (0.5, 0.1, 1.0, -3.0, 0.2, 0.3), strict=True)}
    near = NearTable({word: [("x", 0.9)] for word in "abcdef"})
    scene = Scene(victim=Linear(weights, [9.0, 0.0]), near=near)
    text = "A b. C d! E f"
    near.table = {**near.table, **{w.upper(): [("x", 0.9)] for w in "abcdef"}}
    assert scene.near is not None

    scene.attack(TextBugger(similarity=None), text)
    assert scene.victim.asked[1:4] == ["A b.", "C d!", "E f"]
    assert scene.near.asked == ["A", "b", "f", "E", "C", "d"]

    scene.near.asked.clear()
    scene.victim = Linear(weights, [1.99, 0.0])  # the whole text: 1.09, the second part: -0.01
    scene.attack(TextBugger(similarity=None), text)
    assert scene.near.asked == ["A", "b", "f", "E"]

    scene.near.asked.clear()
    scene.attack(TextBugger(similarity=None, sentences=False), text)
    assert scene.near.asked[:2] == ["C", "A"]

    # Where no sentence alone is of the text's class, none is left out, and they stay in order.
    every = {w: [0.5, 0.0] for w in "abcdef"}
    scene = Scene(victim=Linear(every, [-1.1, 0.0]), near=near)
    near.asked.clear()
    scene.attack(TextBugger(similarity=None, max_changed=0.0), text)
    scene.attack(TextBugger(similarity=None), text)
    assert near.asked[0] == "A"


@pytest.mark.parametrize(
    "text, count",
    [
        ("One sentence", 1),
        ("Ends here.", 1),
        ("Costs 3.50 dollars", 1),
        ("See www.example.com now", 1),
        ('He said "no." Then (really!) left', 3),
        ("One... two?! three", 3),
        ("One.\nTwo", 2),
        ("\u597d\u3002\u574f\uff01", 2),
        ("... one", 1),
    ],
)
def test_sentences_end_where_they_do(text: str, count: int):
    words = Words.of(text)
    parts = sentences(words)
    assert len(parts) == count
    assert [i for part in parts for i in part] == list(range(len(words)))


# ---- pairs ---------------------------------------------------------------------------------------


@every_attack
def test_of_pairs_only_the_second_text_changes(name: str):
    first = "a b, e! Unchanged; p"
    changed = 0
    for seed in range(20):
        of = case(seed)
        scene = _scene(of)
        pair = Words.of(of.text, first=first)
        label = int(of.victim.logits((first, of.text)).argmax())
        (record,) = scene.attack(ATTACKS[name](), pair, label=label)
        assert {item[0] for item in scene.victim.asked} == {first}
        assert all(first not in str(asked) for asked in _asked(scene, "encoder"))
        changed += len(record["changes"])
        turned = int(of.victim.logits((first, record["perturbed"])).argmax()) != label
        assert (record["outcome"] == "succeeded") == turned
    assert changed


def _asked(scene: Scene, name: str) -> list[Any]:
    oracle: Any = scene.others[name]
    return oracle.asked


# ---- temperature ---------------------------------------------------------------------------------

OF_LABEL_ALONE = {
    "textfooler": ATTACKS["textfooler"],
    "textfooler_after": ATTACKS["textfooler_after"],
    "bert_attack": ATTACKS["bert_attack"],
    "textbugger": ATTACKS["textbugger"],
    "deepwordbug": lambda **o: DeepWordBug(ranking="deleted", **o),
}


@pytest.mark.parametrize("name", OF_LABEL_ALONE)
def test_of_two_classes_the_temperature_does_not_matter(name: str):
    """All that counts is an order, as long as float32 can tell it."""
    for seed in SEEDS:
        of = case(seed)
        records = [
            _scene(of).attack(OF_LABEL_ALONE[name](), of.text, label=of.label, temperature=t)
            for t in (0.5, 1.0, 3.0)
        ]
        assert records[0] == records[1] == records[2]


def test_a_victim_too_sure_of_itself_has_to_be_calibrated():
    """Logits 25 apart: in float32 a probability of exactly 1, with any of the words or without."""
    words = ["one", "two", "three", "four"]
    weights = {word: [w, 0.0] for word, w in zip(words, (1.0, 4.0, 2.0, 3.0), strict=True)}
    near = NearTable({word: [(f"{word[0]}x", 0.9)] for word in words})
    scene = Scene(victim=Linear(weights, [25.0, 0.0]), near=near)
    orders, texts = [], []
    for t in (1.0, 10.0):
        near.asked.clear()
        (record,) = scene.attack(TextFooler(similarity=None), " ".join(words), temperature=t)
        orders.append(near.asked[:])
        texts.append(record["perturbed"])
    assert orders == [words, ["two", "four", "three", "one"]]
    # Nothing seems to be gained at T = 1.
    assert texts == [" ".join(words), "ox tx tx fx"]
