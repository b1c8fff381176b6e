"""The table and the pictures of docs/robustness.md, from the figures of single runs.

python -m benchmarks.robustness_report docs
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.markdown import filled, spread, table
from benchmarks.robustness import ATTACKS, FOLDER, RUNS
from lit_adv.curves import BLUE, GREY, ORANGE

MARKS = dict(zip(ATTACKS, ((BLUE, "o"), (ORANGE, "s"), ("#009E73", "^")), strict=True))

Found = dict[str, dict[str, dict[int, dict[str, Any]]]]
"""Figures by data set, run and seed."""


def read(folder: Path = FOLDER) -> Found:
    """All runs there are, in the order of RUNS."""
    found: Found = defaultdict(dict)
    for data in sorted({path.stem.split("-")[0] for path in folder.glob("*.json")}):
        for name in RUNS:
            paths = sorted(folder.glob(f"{data}-{name}-[0-9]*.json"))
            if paths:
                found[data][name] = {
                    int(path.stem.rpartition("-")[2]): json.loads(path.read_text())
                    for path in paths
                }
    return found


def accuracies(run: dict[str, Any], *, calibrated: bool) -> dict[str, float]:
    """Accuracy under each attack, in per cent."""
    return {
        name: (found["calibrated"] if calibrated else found)["accuracy_under_attack"]
        for name, found in run["attacks"].items()
    }


def withstood(run: dict[str, Any]) -> float:
    """Calibrated accuracy, mean of the attacks, in per cent."""
    return mean(accuracies(run, calibrated=True).values())


def outcomes(found: Found) -> str:
    """A line per data set and run: clean accuracy, then for each attack plain / calibrated.

    "over finetune": calibrated accuracy, mean of the attacks, less that of the same seed's
    finetune; both were attacked on the same sentences.
    """
    head = ["data", "run", "seeds", "clean", *ATTACKS, "over finetune", "queries", "training time"]
    lines: list[list[str]] = []
    for data, runs in found.items():
        base = runs.get("finetune", {})
        bar = {seed: withstood(run) for seed, run in base.items()}
        for name, seeds in runs.items():
            cells = [data, f"`{name}`", str(len(seeds)), spread(clean(seeds), 1)]
            for attack in ATTACKS:
                both = (
                    [accuracies(run, calibrated=c)[attack] for run in seeds.values()]
                    for c in (False, True)
                )
                cells.append(" / ".join(spread(values, 1) for values in both))
            gains = [withstood(run) - bar[seed] for seed, run in seeds.items() if seed in bar]
            queries = [run["attacks"][ATTACKS[0]]["mean_queries"] for run in seeds.values()]
            cells += [spread(gains, 1), spread(queries, 1), slower(seeds, base)]
            lines.append(cells)
    return table(head, lines, names=2)


def clean(seeds: dict[int, dict[str, Any]]) -> list[float]:
    """Accuracy on the sample before the attack, in per cent."""
    return [run["attacks"][ATTACKS[0]]["clean_accuracy"] for run in seeds.values()]


def slower(seeds: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    """Seconds per step over finetune's of the same seeds."""
    ratios = [
        run["train"]["seconds_per_step"] / base[seed]["train"]["seconds_per_step"]
        for seed, run in seeds.items()
        if seed in base
    ]
    return spread(ratios, 2)


def draw(data: str, runs: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    """Accuracy before and under the attacks: full marks calibrated, hollow ones as published."""
    figure = Figure(figsize=(7.5, 0.55 * len(runs) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    for row, seeds in enumerate(runs.values()):
        _point(axes, clean(seeds), row - 0.3, color=GREY, marker="D")
        for place, (attack, (color, marker)) in enumerate(MARKS.items()):
            for calibrated in (False, True):
                values = [accuracies(run, calibrated=calibrated)[attack] for run in seeds.values()]
                face = {} if calibrated else {"markerfacecolor": "white"}
                _point(axes, values, row - 0.1 + 0.2 * place, color=color, marker=marker, **face)
        axes.axhline(row + 0.5, color=GREY, linewidth=0.4, alpha=0.4)
    count = max(len(seeds) for seeds in runs.values())
    axes.set(
        yticks=range(len(runs)),
        yticklabels=list(runs),
        ylim=(len(runs) - 0.5, -0.5),
        xlim=(0, 100),
        xlabel="accuracy, %, "
        + ("one seed" if count == 1 else f"mean and standard deviation of {count} seeds"),
        title=f"MiniLM on {data}",
    )
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    point: dict[str, Any] = {"linestyle": "", "markersize": 5}
    legend = [Line2D([], [], color=GREY, marker="D", label="before", **point)]
    for attack, (color, marker) in MARKS.items():
        legend.append(Line2D([], [], color=color, marker=marker, label=attack, **point))
    hollow = {"markerfacecolor": "white", "label": "not calibrated"}
    legend.append(Line2D([], [], color=GREY, marker="o", **hollow, **point))
    figure.legend(handles=legend, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _point(axes: Any, values: list[float], row: float, **style: Any) -> None:
    deviation = stdev(values) if len(values) > 1 else 0.0
    axes.errorbar(mean(values), row, xerr=deviation, markersize=5, elinewidth=1, capsize=2, **style)


def main() -> None:
    """Fill the page in the folder, and draw a picture for each data set beside it."""
    folder = Path(sys.argv[1])
    found = read()
    page = folder / "robustness.md"
    page.write_text(filled(page.read_text(), {"robustness": outcomes(found)}))
    for data, runs in found.items():
        draw(data, runs, folder / f"robustness-{data}.png")


if __name__ == "__main__":
    main()
