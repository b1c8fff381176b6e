"""The table of robustness in docs/robustness.md, from the figures of single runs.

python -m benchmarks.robustness_report docs
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.flooding_x_report import filled
from benchmarks.robustness import ATTACKS, FOLDER, RUNS


def read() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Figures by data set and run."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(FOLDER.glob("*.json")):
        data, rest = path.stem.split("-", 1)
        found[data, rest.rpartition("-")[0]].append(json.loads(path.read_text()))
    return found


def table(found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """A line per data set and run: clean accuracy, then for each attack plain / calibrated."""
    head = ["data", "run", "seeds", "clean", *ATTACKS, "queries (TextFooler)", "training time"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for data in sorted({data for data, _ in found}):
        base = found.get((data, "finetune"))
        for name in RUNS:
            runs = found.get((data, name))
            if not runs:
                continue
            cells = [data, f"`{name}`", str(len(runs))]
            cells.append(spread([run["attacks"]["textfooler"]["clean_accuracy"] for run in runs]))
            for attack in ATTACKS:
                plain = [run["attacks"][attack]["accuracy_under_attack"] for run in runs]
                calibrated = [
                    run["attacks"][attack]["calibrated"]["accuracy_under_attack"] for run in runs
                ]
                cells.append(f"{spread(plain)} / {spread(calibrated)}")
            cells.append(spread([run["attacks"]["textfooler"]["mean_queries"] for run in runs]))
            mine, plain_time = (
                mean(run["train"]["seconds_per_step"] for run in each)
                for each in (runs, base or runs)
            )
            cells.append(f"{mine / plain_time:.2f}")
            lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def main() -> None:
    """Fill the page in the folder."""
    page = Path(sys.argv[1]) / "robustness.md"
    page.write_text(filled(page.read_text(), {"robustness": table(read())}))


if __name__ == "__main__":
    main()
