"""The presets named after TextAttack against TextAttack itself, text by text.

    python -m venv OTHER && OTHER/bin/pip install textattack==0.3.11 'transformers<5'
    OTHER/bin/python -m nltk.downloader stopwords
    python -m benchmarks.presets --python OTHER/bin/python [--json]

Both attack the same random victims (`benchmarks.bag`) of two and of four classes, each library in
its own environment. Same: the attack ends in success or not, as the other does, with the same text
(where letters are drawn by chance, the same words changed), by the same number of questions.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from benchmarks import markdown
from benchmarks.bag import Case, made, vector, write
from lit_adv import config
from lit_adv.attacks.engine import Engine
from lit_adv.attacks.masked_lm import Propose
from lit_adv.attacks.tools import Tools
from lit_adv.attacks.trial import Example, Recipe, trial
from lit_adv.attacks.words import Words

PRESETS = {
    # Letters of a word: of one, TextBugger's random misspellings have nothing to misspell.
    "textfooler/textattack": 1,
    "bert_attack/textattack": 1,
    "textbugger/textattack": 1,
    "deepwordbug/textattack": 6,
    "pwws/textattack": 1,
}
SIDE = Path(__file__).with_name("textattack_side.py")


class Answers:
    """A case as attacks of this library ask it: each item is its own key."""

    def __init__(self, case: Case, kind: str) -> None:
        self.case, self.kind = case, kind

    def keys(self, items: Sequence[Any]) -> list[Any]:
        """What an answer depends on."""
        return list(items)

    def answer(self, keys: Sequence[Any]) -> list[Any]:
        """By the kind of the oracle."""
        if self.kind == "encoder":
            return [vector(key) for key in keys]
        if self.kind == "masked_lm":
            return [self._proposed(key) for key in keys]
        return [self.case.logits(key) for key in keys]

    def _proposed(self, key: Propose) -> list[list[str]]:
        near = [self.case.near.get(key.words[place], [])[: key.k] for place in key.places]
        return [[word for word, _ in some] for some in near]


class Tables:
    """A case's tables, as neighbours and as synonyms."""

    similarity_known = True

    def __init__(self, case: Case) -> None:
        self.case = case

    def near(self, word: str, k: int, min_cosine: float) -> list[str]:
        """The nearest words."""
        return [w for w, cosine in self.case.near.get(word, [])[:k] if cosine >= min_cosine]

    def cosine(self, a: str, b: str) -> float | None:
        """What the table says."""
        return dict(self.case.near.get(a, [])).get(b)

    def synonyms(self, word: str, pos: str) -> list[str]:
        """All words, as nouns."""
        return self.near(word, 50, -1.0) if pos == "NOUN" else []


def attack(recipe: Recipe, case: Case) -> dict[str, Any]:
    """Outcome, text and questions."""
    names = ("victim", "exact", "encoder", "masked_lm")
    engine = Engine({name: Answers(case, name) for name in names})
    tables, stop_words = Tables(case), frozenset(case.stop_words)
    tools = Tools(
        neighbours=tables, wordnet=tables, stop_words=stop_words, oracles=frozenset(names)
    )
    example = Example(index=0, text=Words.of(case.text), label=case.label)
    ((_, record),) = engine.run([(0, trial(example, recipe, tools, 1.0))])
    if isinstance(record, Exception):
        raise record
    won = record["outcome"] == "succeeded"
    return {"won": won, "text": record["perturbed"], "queries": record["queries"]}


def preset(name: str) -> Recipe:
    """As `attack=NAME` has it."""
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        (node,) = compose("attack_command", [f"attack=[{name}]"]).attack.recipes.values()
    return instantiate(node)


def same_text(case: Case, ours: str, theirs: str, exactly: bool) -> bool:
    """Whether texts are equal, or the same of their words are changed."""
    if exactly:
        return ours == theirs
    changed = [
        [i for i, (a, b) in enumerate(zip(case.words, text.split(), strict=True)) if a != b]
        for text in (ours, theirs)
    ]
    return changed[0] == changed[1]


def figures(
    cases: dict[str, list[Case]], theirs: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Of how many cases each preset ends as TextAttack's recipe does."""
    rows = []
    for name, some in cases.items():
        recipe, exactly = preset(name), PRESETS[name] == 1
        row = {"preset": name, "cases": len(some), "won": 0, "outcome": 0, "text": 0, "queries": 0}
        for case, their in zip(some, theirs[name], strict=True):
            our = attack(recipe, case)
            row["won"] += our["won"]
            row["outcome"] += our["won"] == their["won"]
            # A text that does not turn is not what either library reports.
            both = our["won"] and their["won"]
            row["text"] += not both or same_text(case, our["text"], their["text"], exactly)
            row["queries"] += our["queries"] == their["queries"]
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown."""
    head = ["preset", "texts", "turned", "same outcome", "same text", "same questions"]
    lines = [[f"`{row['preset']}`", *(str(v) for v in list(row.values())[1:])] for row in rows]
    return markdown.table(head, lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", required=True, help="of an environment with TextAttack 0.3.11")
    parser.add_argument("--cases", type=int, default=200, help="per preset and number of classes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds = range(arguments.cases)
    cases = {
        name: [made(seed, n, 20, letters) for n in (2, 4) for seed in seeds]
        for name, letters in PRESETS.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("cases.json", "answers.json")]
        write(cases, paths[0])
        subprocess.run([arguments.python, str(SIDE), *map(str, paths)], check=True)
        rows = figures(cases, json.loads(paths[1].read_text()))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(table(rows))


if __name__ == "__main__":
    main()
