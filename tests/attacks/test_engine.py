"""The engine: what attacks are told does not depend on each other, and is asked for once."""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from attacks.victims import Answering, Encoding, NearTable, Proposing, Scene, case

from lit_adv.attacks.bert_attack import BertAttack
from lit_adv.attacks.engine import Engine, Request, Steps
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.textbugger import TextBugger
from lit_adv.attacks.textfooler import TextFooler
from lit_adv.attacks.trial import Example
from lit_adv.attacks.words import Words


class Squares(Answering):
    """Answers numbers; the sign does not matter to it."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[list[int]] = []

    def keys(self, items: Sequence[int]) -> list[int]:
        return [abs(item) for item in items]

    def answer(self, keys: Sequence[int]) -> list[int]:
        self.rounds.append(list(keys))
        return super().answer(keys)

    def one(self, key: int) -> int:
        return key * key


class Roots(Answering):
    def one(self, key: int) -> float:
        return key**0.5


def _adding(start: int, rounds: int) -> Steps[list[float]]:
    """Asks for what depends on earlier answers, of two oracles."""
    told: list[float] = []
    for i in range(rounds):
        items = [start + i, -start, i]
        squares = yield Request("squares", items)
        assert squares == [item * item for item in items]
        (root,) = yield Request("roots", [sum(squares)])
        told += [*squares, root]
    return told


def _engine(**options: Any) -> tuple[Engine, Squares, Roots]:
    squares, roots = Squares(), Roots()
    return Engine({"roots": roots, "squares": squares}, **options), squares, roots


def _expected(start: int, rounds: int) -> list[float]:
    told: list[float] = []
    for i in range(rounds):
        squares = [(start + i) ** 2, start**2, i**2]
        told += [*squares, sum(squares) ** 0.5]
    return told


ATTACKS = {f"{start}, {rounds}": (start, rounds) for start in range(-9, 9) for rounds in range(5)}


@pytest.mark.parametrize("concurrency", [1, 2, 7, 100])
@pytest.mark.parametrize("remember", [2**17, 3, 0])
def test_answers_are_the_same_however_many_attacks_there_are(concurrency: int, remember: int):
    for seed in range(3):
        order = list(ATTACKS)
        Random(seed).shuffle(order)
        engine, squares, roots = _engine(concurrency=concurrency, remember=remember)
        outcomes = list(engine.run((name, _adding(*ATTACKS[name])) for name in order))
        assert sorted(name for name, _ in outcomes) == sorted(ATTACKS)
        assert dict(outcomes) == {name: _expected(*steps) for name, steps in ATTACKS.items()}

        rounds = sum(rounds for _, rounds in ATTACKS.values())
        assert engine.asked == {"squares": 3 * rounds, "roots": rounds}
        assert engine.answered == {"squares": len(squares.asked), "roots": len(roots.asked)}
        if remember > 1000:  # each distinct question once, in the whole run
            assert sorted(squares.asked) == sorted(set(squares.asked))
            assert sorted(roots.asked) == sorted(set(roots.asked))
        for asked in squares.rounds:  # at least in every round
            assert len(asked) == len(set(asked)) > 0


def test_questions_of_one_round_are_asked_together():
    engine, squares, _ = _engine(concurrency=4)
    list(engine.run((start, _adding(start, 1)) for start in range(1, 9)))
    assert squares.rounds == [[1, 0, 2, 3, 4], [5, 6, 7, 8]]


def test_no_more_than_so_many_attacks_are_begun():
    begun: list[int] = []

    def steps(i: int) -> Steps[int]:
        begun.append(i)
        for _ in range(4 + i % 3):
            yield Request("squares", [i])
        return i

    engine, _, _ = _engine(concurrency=5)
    ended = 0
    for _ in engine.run((i, steps(i)) for i in range(40)):
        ended += 1
        assert len(begun) - ended < 5
    assert begun == list(range(40)) and ended == 40


def test_attacks_are_told_apart_by_whatever_names_them():
    engine, _, _ = _engine()
    both = [("same", _adding(1, 1)), ("same", _adding(2, 1))]
    outcomes: list[Any] = [outcome for _, outcome in engine.run(both)]
    assert sorted(outcomes) == [_expected(1, 1), _expected(2, 1)]


def test_an_attack_that_fails_gives_its_error_and_ends_no_other():
    def failing(after: int) -> Steps[int]:
        for i in range(after):
            yield Request("squares", [i])
        raise ArithmeticError(f"after {after}")

    attacks: dict[Any, Steps[Any]] = {}
    for i in range(5):
        attacks |= {f"well {i}": _adding(i, 3), f"failing {i}": failing(i)}
    engine, _, _ = _engine(concurrency=3)
    outcomes = dict(engine.run(attacks.items()))
    for i in range(5):
        assert outcomes[f"well {i}"] == _expected(i, 3)
        error = outcomes[f"failing {i}"]
        assert isinstance(error, ArithmeticError) and str(error) == f"after {i}"


def test_attacks_may_end_without_a_question_and_there_may_be_none():
    def silent(i: int) -> Steps[int]:
        return i
        yield  # pyright: ignore

    engine, squares, _ = _engine(concurrency=2)
    assert list(engine.run([])) == []
    assert list(engine.run((i, silent(i)) for i in range(7))) == [(i, i) for i in range(7)]
    assert squares.rounds == [] and engine.asked == {"squares": 0, "roots": 0}

    def nothing() -> Steps[list[Any]]:
        return (yield Request("squares", []))

    assert list(engine.run([(0, nothing())])) == [(0, [])]


def test_an_unknown_oracle_is_an_error():
    def astray(after: int) -> Steps[None]:
        for _ in range(after):
            yield Request("squares", [1])
        yield Request("squres", [1])

    for after in (0, 2):
        engine, _, _ = _engine()
        with pytest.raises(KeyError, match="no oracle named squres"):
            list(engine.run([(0, _adding(1, 3)), (1, astray(after))]))


def test_an_oracle_by_two_names_is_asked_once_for_both():
    def steps() -> Steps[tuple[int, int]]:
        (one,) = yield Request("victim", [3])
        (two,) = yield Request("exact", [-3])
        return one, two

    squares = Squares()
    engine = Engine({"victim": squares, "exact": squares})
    assert list(engine.run([(0, steps())])) == [(0, (9, 9))]
    assert squares.asked == [3] and engine.answered == {"victim": 1, "exact": 0}
    other = Engine({"victim": Squares(), "exact": squares})
    assert list(other.run([(0, steps())])) == [(0, (9, 9))]
    assert other.answered == {"victim": 1, "exact": 1}


def test_the_oldest_answers_are_forgotten_first():
    def steps(*numbers: int) -> Steps[list[int]]:
        told: list[int] = []
        for number in numbers:
            told += yield Request("squares", [number])
        return told

    engine, squares, _ = _engine(remember=2)
    assert list(engine.run([(0, steps(1, 2, 3, 2, 3, 1))])) == [(0, [1, 4, 9, 4, 9, 1])]
    assert squares.asked == [1, 2, 3, 1]


def test_concurrency_is_a_number_of_attacks():
    with pytest.raises(ValueError, match="concurrency=0"):
        _engine(concurrency=0)


# ---- attacks -------------------------------------------------------------------------------------

RECIPES = {
    "textfooler": TextFooler(similarity=Similarity(threshold=0.7, window=5), min_cosine=0.0),
    "bert_attack": BertAttack(),
    "textbugger": TextBugger(similarity=Similarity(threshold=0.6, window=3)),
}


def _scene(concurrency: int) -> tuple[Scene, list[str]]:
    """One victim, and texts that have much in common."""
    of = case(1)
    texts = [text for seed in range(60) if _zero(of.victim, text := case(seed).text)]
    words = {word: [w for w, _ in near] for word, near in of.near.items()}
    others = {"masked_lm": Proposing(words), "encoder": Encoding()}
    near = NearTable(of.near)
    scene = Scene(victim=of.victim, near=near, others=others, concurrency=concurrency)
    return scene, texts


def _zero(victim: Any, text: str) -> bool:
    return int(victim.logits(text).argmax()) == 0


@pytest.mark.parametrize("name", RECIPES)
def test_attacks_come_out_the_same_side_by_side_and_one_by_one(name: str):
    scene, texts = _scene(256)
    expected = scene.attack(RECIPES[name], *texts)
    assert {record["outcome"] for record in expected} == {"succeeded", "failed"}
    asked = scene.engine.asked
    for concurrency in (1, 2, 7, 100):
        scene, texts = _scene(concurrency)
        order = np.random.default_rng(concurrency).permutation(len(texts))
        records = scene.attack(RECIPES[name], *(texts[i] for i in order))
        assert records == [expected[i] for i in order]
        assert scene.engine.asked == asked
        assert len(set(scene.victim.asked)) == len(scene.victim.asked)


# ---- a trial -------------------------------------------------------------------------------------


def test_a_record_says_what_came_out():
    scene, _ = _scene(1)
    scene.victim.weights = {"dull": [1.0, 0.0], "good": [0.0, 0.6], "film": [0.0, 0.0]}
    scene.victim.bias = [0.5, 0.0]
    scene.near = NearTable({"dull": [("good", 0.9)]})
    scene.others = {}
    recipe = TextFooler(similarity=None)
    wrong, won, lost = scene.attack(recipe, "good good film", "A dull film!", "film, film")
    assert wrong == {"outcome": "misclassified", "prediction": 1}
    assert won == {
        "outcome": "succeeded",
        "prediction": 0,
        "new_prediction": 1,
        "perturbed": "A good film!",
        "marked_original": [("A ", False), ("dull", True), (" film!", False)],
        "marked_perturbed": [("A ", False), ("good", True), (" film!", False)],
        "changes": [{"place": 1, "from": "dull", "to": "good"}],
        "queries": 1 + 3 + 1,
        "changed": 1 / 3,
        "similarity": None,
    }
    assert lost["outcome"] == "failed" and lost["new_prediction"] == 0
    assert lost["changes"] == [] and lost["marked_original"] == [("film, film", False)]
    scene.others = {"encoder": Encoding({"A dull film!": [1.0, 0.0], "A good film!": [0.8, 0.6]})}
    won, lost = scene.attack(recipe, "A dull film!", "film, film")
    assert won["similarity"] == pytest.approx(0.8) and lost["similarity"] is None


@pytest.mark.parametrize(
    "text, label, said",
    [
        ("", 0, "empty text"),
        (" \n", 0, "empty text"),
        ("?!", 0, "no words"),
        ("film", 2, "label 2: the victim knows 2 classes"),
        ("film", -1, "label -1: the victim knows 2 classes"),
        ("film", 1, None),
    ],
)
def test_what_cannot_be_attacked_says_why(text: str, label: int, said: str | None):
    assert Example(index=0, text=Words.of(text), label=label).odd(2) == said


def test_what_goes_wrong_inside_an_attack_is_its_outcome():
    scene, _ = _scene(1)
    scene.near = None  # TextFooler cannot do without
    with pytest.raises(AssertionError):
        scene.attack(RECIPES["textfooler"], "a b")
