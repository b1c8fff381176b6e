"""A Markdown table of many runs: mean and standard deviation over seeds.

python -m benchmarks.table multirun > table.md
python -m benchmarks.table multirun --collect benchmarks/results/mr_minilm
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.markdown import spread

METRICS = ("accuracy", "loss", "calibration_error")


def read(folder: Path) -> list[dict[str, Any]]:
    """All results below a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json")) if _is(path)]


def table(results: list[dict[str, Any]], split: str = "test") -> str:
    """One row per method, flood and proximal, in the order of their first runs' names."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        parts = [result[key] for key in ("method", "flood", "proximal")]
        groups[" + ".join(part for part in parts if part != "none")].append(result)

    head = ["run", "seeds", *(f"{split} {name.replace('_', ' ')}" for name in METRICS)]
    lines: list[list[str]] = []
    for name, runs in groups.items():
        cells = [spread([run[split][metric] for run in runs], 4) for metric in METRICS]
        lines.append([f"`{name}`", str(len(runs)), *cells])
    return markdown.table(head, lines)


def _is(path: Path) -> bool:
    return path.name == "results.json" or path.parent.parent.name == "results"


def main() -> None:
    """Print the table; with --collect, keep the raw results in one folder too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--collect", type=Path, help="folder for one small file per run")
    arguments = parser.parse_args()
    results = read(arguments.folder)
    if arguments.collect:
        arguments.collect.mkdir(parents=True, exist_ok=True)
        for result in results:
            parts = [str(result[key]) for key in ("method", "flood", "proximal", "seed")]
            path = arguments.collect / f"{'-'.join(parts).replace('/', '_')}.json"
            path.write_text(json.dumps(result, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
