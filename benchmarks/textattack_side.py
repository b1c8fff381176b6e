"""TextAttack's own recipes on the cases of `benchmarks.presets`, in an environment of its own.

    PYTHON benchmarks/textattack_side.py CASES ANSWERS

Of each recipe everything is TextAttack's but for what it downloads: neighbours and synonyms are the
case's tables, sentences are encoded by `bag.vector`, and parts of speech are not compared.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import textattack  # pyright: ignore[reportMissingImports]
import torch
from bag import Case, read, softmax, vector
from textattack import Attack  # pyright: ignore[reportMissingImports]
from textattack import transformations as t  # pyright: ignore[reportMissingImports]
from textattack.constraints.overlap import (  # pyright: ignore[reportMissingImports]
    LevenshteinEditDistance,
    MaxWordsPerturbed,
)
from textattack.constraints.pre_transformation import (  # pyright: ignore[reportMissingImports]
    RepeatModification,
    StopwordModification,
)
from textattack.constraints.semantics.sentence_encoders import (  # pyright: ignore[reportMissingImports]
    SentenceEncoder,
)
from textattack.goal_functions import (  # pyright: ignore[reportMissingImports]
    UntargetedClassification,
)
from textattack.models.wrappers import ModelWrapper  # pyright: ignore[reportMissingImports]
from textattack.search_methods import GreedyWordSwapWIR  # pyright: ignore[reportMissingImports]
from textattack.transformations.word_swaps.word_swap import (  # pyright: ignore[reportMissingImports]
    WordSwap,
)

INNER = {"random_one": True, "skip_first_char": True, "skip_last_char": True}


class Victim(ModelWrapper):
    """A case's victim."""

    model = None

    def __init__(self, case: Case) -> None:
        self.case = case

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor(np.stack([softmax(self.case.logits(text)) for text in texts]))


class Listed(WordSwap):
    """Exchanges a word for those that a table has."""

    def __init__(self, case: Case, k: int, min_cosine: float = -1.0, free: bool = False) -> None:
        super().__init__()
        self.case, self.k, self.min_cosine, self.free = case, k, min_cosine, free

    def _get_replacement_words(self, word: str) -> list[str]:
        near = self.case.near.get(word, [])[: self.k]
        kept = [w for w, cosine in near if cosine >= self.min_cosine]
        return [w for w in kept if not (self.free and w in self.case.stop_words)]


class Alike(SentenceEncoder):
    """Asks for like sentences, by `bag.vector`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.model = self

    def encode(self, sentences: list[str]) -> np.ndarray:
        return np.stack([vector(sentence) for sentence in sentences])


def recipe(name: str, case: Case) -> tuple[Any, Any, list[Any]]:
    """Search, transformation and further constraints of `textattack/attack_recipes`."""
    if name == "textfooler/textattack":
        window = {"window_size": 15, "skip_text_shorter_than_window": True}
        alike = Alike(
            threshold=0.840845057, metric="angular", compare_against_original=False, **window
        )
        return GreedyWordSwapWIR("delete"), Listed(case, 50, 0.5), [alike]
    if name == "bert_attack/textattack":
        alike = Alike(threshold=0.2, metric="cosine")
        limits = [MaxWordsPerturbed(max_percent=0.4), alike]
        return GreedyWordSwapWIR("unk"), Listed(case, 8, free=True), limits
    if name == "textbugger/textattack":
        bugs = [
            t.WordSwapRandomCharacterInsertion(letters_to_insert=" ", **INNER),
            t.WordSwapRandomCharacterDeletion(**INNER),
            t.WordSwapNeighboringCharacterSwap(**INNER),
            t.WordSwapHomoglyphSwap(),
            Listed(case, 5),
        ]
        alike = Alike(threshold=0.8, metric="angular")
        return GreedyWordSwapWIR("delete"), t.CompositeTransformation(bugs), [alike]
    if name == "deepwordbug/textattack":
        bugs = [
            t.WordSwapNeighboringCharacterSwap(),
            t.WordSwapRandomCharacterSubstitution(),
            t.WordSwapRandomCharacterDeletion(),
            t.WordSwapRandomCharacterInsertion(),
        ]
        limits = [LevenshteinEditDistance(30)]
        return GreedyWordSwapWIR("unk"), t.CompositeTransformation(bugs), limits
    assert name == "pwws/textattack", name
    return GreedyWordSwapWIR("weighted-saliency"), Listed(case, 50), []


def attack(name: str, case: Case) -> dict[str, Any]:
    """Outcome, text and questions."""
    search, transformation, limits = recipe(name, case)
    fixed = [RepeatModification(), StopwordModification(stopwords=set(case.stop_words))]
    goal = UntargetedClassification(Victim(case))
    result = Attack(goal, [*fixed, *limits], transformation, search).attack(case.text, case.label)
    won = type(result).__name__ == "SuccessfulAttackResult"
    text = result.perturbed_result.attacked_text.text
    return {"won": won, "text": text, "queries": result.num_queries}


def main() -> None:
    """Attack every case by its preset."""
    # Look-alikes of words come from a table in the code; this file, of whole texts, is missing in
    # the wheel of 0.3.11, and its TextBugger cannot be built without it.
    (Path(textattack.__path__[0]) / "shared" / "intentional_homoglyphs.txt").touch()
    np.random.seed(0)  # it draws places by one of these, and letters by the other
    random.seed(0)
    cases = read(Path(sys.argv[1]))
    answers = {name: [attack(name, case) for case in some] for name, some in cases.items()}
    Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
