"""Attacks on a whole sample: the same however it is run, and nothing is lost."""

from pathlib import Path
from typing import Any

import pytest
import torch
from subject import build, session

from lit_adv.attacks.deepwordbug import DeepWordBug
from lit_adv.attacks.embedding_pgd import EmbeddingPGD
from lit_adv.attacks.progress import Progress
from lit_adv.attacks.pwws import PWWS
from lit_adv.attacks.resources import Resources, describe
from lit_adv.attacks.series import Series
from lit_adv.attacks.session import Session
from lit_adv.attacks.settings import Settings
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.textbugger import TextBugger
from lit_adv.attacks.textfooler import TextFooler
from lit_adv.data.splits import Split, Splits

MODEL, DATA = build()
LIKE = Similarity(threshold=0.2, metric="cosine")
RECIPES = {
    "textfooler": TextFooler(similarity=LIKE),
    "textfooler_before": TextFooler(similarity=LIKE, constrain="before"),
    "textbugger": TextBugger(similarity=LIKE, dissimilar="skip"),
    "deepwordbug": DeepWordBug(change="any"),
    "pwws": PWWS(),
}


def attacked(recipe: Any, **settings: Any) -> list[dict[str, Any]]:
    """The records of all test reviews, in the order of the rows."""
    each = session(MODEL, DATA, **settings)
    kit = each.kit(recipe)
    records = list(each.attack(each.examples(each.rows()), recipe, kit))
    return sorted(records, key=lambda record: record["index"])


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two series came to the same; similarities up to the rounding of other batches."""
    strip = [[{k: v for k, v in r.items() if k != "similarity"} for r in rs] for rs in (one, other)]
    close = [
        (a["similarity"] is None) == (b["similarity"] is None)
        and abs((a["similarity"] or 0) - (b["similarity"] or 0)) < 1e-5
        for a, b in zip(one, other, strict=True)
        if "similarity" in a
    ]
    return strip[0] == strip[1] and all(close)


@pytest.mark.parametrize("name", RECIPES)
def test_results_do_not_depend_on_batches_nor_on_how_many_run_at_once(name: str) -> None:
    expected = attacked(RECIPES[name])
    outcomes = {record["outcome"] for record in expected}
    assert "succeeded" in outcomes and len({r["queries"] for r in expected if "queries" in r}) > 1
    for settings in ({"batch_tokens": 16}, {"concurrency": 1}, {"concurrency": 5}):
        assert alike(attacked(RECIPES[name], **settings), expected), settings


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_every_success_is_one_for_the_network_itself_in_full_precision(precision: str) -> None:
    records = attacked(RECIPES["textfooler"], precision=precision)
    won = [record for record in records if record["outcome"] == "succeeded"]
    assert won
    for record in won:
        with torch.no_grad():
            said = [
                int(MODEL.network(**MODEL.tokenizer(text, return_tensors="pt")).logits.argmax())
                for text in (record["original"], record["perturbed"])
            ]
        assert said[0] == record["label"] != said[1] == record["new_prediction"]


def test_a_record_says_what_was_changed() -> None:
    for record in attacked(RECIPES["textfooler"]):
        if record["outcome"] not in ("succeeded", "failed"):
            continue
        marked = record["marked_perturbed"]
        assert "".join(text for text, _ in marked) == record["perturbed"]
        assert [text for text, odd in marked if odd] == [c["to"] for c in record["changes"]]
        assert record["changed"] == len(record["changes"]) / record["words"]
        assert (record["similarity"] is None) == (not record["changes"])


def test_the_calibrated_victim_is_attacked_beside() -> None:
    each = session(MODEL, DATA, calibrate=True)
    recipe = RECIPES["textfooler"]
    records = list(each.attack(each.examples(each.rows()), recipe, each.kit(recipe)))
    plain = attacked(recipe)
    for record, alone in zip(sorted(records, key=lambda r: r["index"]), plain, strict=True):
        calibrated = record.pop("calibrated")
        # Of two classes a temperature changes no order, as long as no probability is exactly 1.
        assert calibrated["outcome"] == record["outcome"] == alone["outcome"]


class Odd(type(DATA)):
    """What users bring."""

    def load(self) -> Splits:
        texts = [
            "",
            "  \n",
            "?!...",
            "good " * 500,
            "这部电影很好看",
            "फ़िल्म अच्छी है",
            "🙂",
            "good film",
        ]
        labels: list[int | float] = [0, 1, 0, 1, 0, 1, 0, -1]
        test = Split(texts=texts, labels=labels)
        return Splits(
            train=DATA.splits.train,
            validation=DATA.splits.validation,
            test=test,
            label_names=["a", "b"],
        )


@pytest.mark.parametrize("name", [*RECIPES, "embedding_pgd"])
def test_odd_examples_are_counted_with_a_reason_and_end_nothing(name: str) -> None:
    recipe: Any = RECIPES.get(name) or EmbeddingPGD()
    each = session(MODEL, Odd(max_length=64), calibrate=True)
    records = list(each.attack(each.examples(range(8)), recipe, each.kit(recipe)))
    by_row = {record["index"]: record for record in records}
    assert len(records) == 8
    reasons = [by_row[row].get("reason") for row in (0, 1, 2, 6, 7)]
    assert reasons[:4] == ["empty text", "empty text", "no words", "no words"]
    assert reasons[4] == "label -1: the victim knows 2 classes"
    assert all(by_row[row]["outcome"] != "skipped" for row in (3, 4, 5))
    assert [row for row in range(8) if by_row[row]["truncated"]] == [3]


def test_a_defect_in_one_attack_is_told_and_ends_no_other() -> None:
    class Breaks(TextFooler):
        def __call__(self, goal: Any, tools: Any) -> Any:
            if goal.original.text == DATA.splits.test.texts[3]:
                raise RuntimeError("broken")
            return (yield from super().__call__(goal, tools))

    records = attacked(Breaks(similarity=LIKE))
    assert [r["reason"] for r in records if r["outcome"] == "skipped"] == ["RuntimeError: broken"]
    assert len(records) == len(DATA.splits.test)


def test_what_does_not_fit_is_refused() -> None:
    three, _ = build(4)
    three.network.config.num_labels = 3
    with pytest.raises(ValueError, match="knows 3 classes, the data 2: blame, praise"):
        session(three, DATA)
    options: list[tuple[dict[str, Any], str]]
    options = [({"n": 0}, "attack.n=0"), ({"split": "train"}, "attack.split=train")]
    for settings, message in options:
        with pytest.raises(ValueError, match=message):
            Settings(**settings)
    for name in ("neighbours", "wordnet", "tagger", "stop_words", "encoder", "masked_lm"):
        resources = Resources(**{name: "./nowhere"})
        each = Session(MODEL.network, MODEL.tokenizer, DATA, Settings(), resources)
        recipe = {"wordnet": PWWS()}.get(name, TextFooler())
        if name == "masked_lm":
            from lit_adv.attacks.bert_attack import BertAttack

            recipe = BertAttack()
        with pytest.raises(ValueError, match=rf"attack.resources.{name}=./nowhere: no such file"):
            each.kit(recipe)


def series(folder: Path, **settings: Any) -> Series:
    """TextFooler on all test reviews."""
    each = session(MODEL, DATA, calibrate=True, **settings)
    described = {"victim": describe("victim", "here"), "data": {"name": "reviews"}}
    made = Series("textfooler", RECIPES["textfooler"], each, folder, described)
    made.claim()
    return made


def test_an_interrupted_series_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = series(tmp_path / "whole")
    whole.work()
    expected = whole.conclude()

    add, left = Progress.add, [5]

    def stops(progress: Progress, record: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        add(progress, record)

    folder = tmp_path / "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "add", stops)
        with pytest.raises(KeyboardInterrupt):
            series(folder, concurrency=3).work()
    lines = folder / "attack.part0.jsonl"
    assert len(lines.read_text().splitlines()) == 5
    with lines.open("a") as file:
        file.write('{"index": 7, "lab')  # as a killed process leaves it

    again = series(folder, concurrency=4)
    again.work()
    got = again.conclude()
    timing = {"seconds", "queries_per_second"}
    similarities = [each.pop("mean_similarity") for each in (got, expected)]
    similarities += [each["calibrated"].pop("mean_similarity") for each in (got, expected)]
    assert similarities[::2] == pytest.approx(similarities[1::2])
    assert [key for key in expected if got[key] != expected[key]] == sorted(timing, reverse=True)
    assert not lines.exists()
    finished = series(folder)
    finished.work()  # nothing left
    assert finished.conclude()["seconds"] == got["seconds"]

    with pytest.raises(
        ValueError, match=r"holds attacks with settings.seed=0, now 1; give another"
    ):
        series(folder, seed=1)
