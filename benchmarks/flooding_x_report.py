"""Tables and pictures of what `benchmarks.flooding_x` has left, also into `flooding-x.md`.

python -m benchmarks.flooding_x_report docs
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from benchmarks.flooding_x import FOLDER, METRICS
from benchmarks.markdown import filled, spread, table
from lit_adv.accordance.picture import STYLES
from lit_adv.accordance.readings import SERIES, Direction, Reading, changes
from lit_adv.curves import GREY, ORANGE

TRIGGERS: list[tuple[str, Direction, float]] = [
    ("cross", "neg_to_pos", 0.0),
    ("cross", "neg_to_pos", 1.0),
    ("cross", "neg_to_pos", 2.0),
    ("all", "any", 1.0),
    ("validation", "pos_to_neg", 0.0),
    ("validation", "pos_to_neg", 1.0),
    ("validation", "pos_to_neg", 2.0),
]

Runs = dict[str, dict[str, list[dict[str, Any]]]]
"""Figures of the seeds, by data and setting."""


def read(folder: Path = FOLDER) -> Runs:
    """All runs there are."""
    runs: Runs = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*.json")):
        data, rows, setting, seed = path.stem.rsplit("-", 3)
        figures = {"seed": int(seed), **json.loads(path.read_text())}
        for reading in figures["readings"]:  # JSON knows no NaN
            for part in ("values", "errors"):
                reading[part] = {k: v for k, v in reading[part].items() if v is not None}
        runs[f"{data}, {rows}"][setting].append(figures)
    return runs


def lowest(run: dict[str, Any]) -> int:
    """The epoch of the lowest validation loss, from 1."""
    losses = [epoch["validation"]["loss"] for epoch in run["epochs"]]
    return losses.index(min(losses)) + 1


def changed(run: dict[str, Any], series: str, direction: Direction, hysteresis: float) -> int:
    """The epoch of the first change of sign, from 1; 0 = none."""
    readings = [Reading(**reading) for reading in run["readings"]]
    first = next(changes(readings, series, direction, hysteresis), None)
    return 0 if first is None else round(first.epoch)


def signals(runs: Runs) -> str:
    """Each trigger: how often it fires, and how many epochs after the lowest validation loss."""
    head = ["data", "series", "standard errors", "runs", "fired", "epochs late"]
    lines: list[list[str]] = []
    for data, settings in runs.items():
        for series, direction, hysteresis in TRIGGERS:
            plain = settings["plain"]
            fired = [(changed(run, series, direction, hysteresis), lowest(run)) for run in plain]
            late = [epoch - best for epoch, best in fired if epoch]
            name = f"`{series}` {direction.replace('_', ' ')}"
            count = [str(len(plain)), str(len(late))]
            lines.append([data, name, f"{hysteresis:g}", *count, spread(late, 1)])
    return table(head, lines, names=2)


def outcomes(runs: Runs) -> str:
    """Test figures after the last epoch, and at the lowest validation loss, by seed against plain.

    The last column is the mean difference, and its standard deviation over seeds, to plain training
    stopped at its lowest validation loss.
    """
    head = ["data", "run", "seeds", *(f"test {name.replace('_', ' ')}" for name in METRICS)]
    head.append("accuracy over early stopping")
    lines: list[list[str]] = []
    for data, settings in runs.items():
        bar = {run["seed"]: stopped(run)["accuracy"] for run in settings["plain"]}
        for setting in sorted(settings, key=lambda name: (name != "plain", name)):
            found = settings[setting]
            rows = {
                setting: [run["epochs"][-1]["test"] for run in found],
                f"{setting}, stopped early": [stopped(run) for run in found],
            }
            for name, tests in rows.items():
                cells = [spread([test[metric] for test in tests], 3) for metric in METRICS]
                gains = [
                    test["accuracy"] - bar[run["seed"]]
                    for test, run in zip(tests, found, strict=True)
                    if run["seed"] in bar
                ]
                lines.append([data, name, str(len(tests)), *cells, spread(gains, 3)])
    return table(head, lines, names=2)


def stopped(run: dict[str, Any]) -> dict[str, float]:
    """The test figures at the epoch of the lowest validation loss."""
    return run["epochs"][lowest(run) - 1]["test"]


def draw(data: str, plain: list[dict[str, Any]], path: Path) -> None:
    """Accordance and test loss by epoch, mean and standard deviation over the seeds."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for series in SERIES:
        color, line, marker, label = STYLES[series]
        seeds = [[reading["values"][series] for reading in run["readings"]] for run in plain]
        _band(above, seeds, color=color, linestyle=line, marker=marker, label=label)
    above.axhline(0, color=GREY, linewidth=1)
    above.set(ylabel="gradient accordance", title=f"MiniLM on {data} examples, {len(plain)} seeds")
    losses = [[epoch["test"]["loss"] for epoch in run["epochs"]] for run in plain]
    train = [[epoch["train_loss"] for epoch in run["epochs"]] for run in plain]
    _band(below, losses, color=ORANGE, linestyle="--", marker="o", label="test loss")
    _band(below, train, color=GREY, linestyle=":", marker=".", label="training loss")
    for run in plain:
        below.axvline(lowest(run), color=ORANGE, linewidth=0.8, alpha=0.5)
    below.set(xlabel="epoch (thin lines: lowest validation loss of each seed)", ylabel="loss")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _band(axes: Any, seeds: list[list[float]], **style: Any) -> None:
    columns = list(zip(*seeds, strict=True))
    epochs = range(1, len(columns) + 1)
    middle = [mean(column) for column in columns]
    deviation = [stdev(column) if len(column) > 1 else 0.0 for column in columns]
    axes.plot(epochs, middle, markersize=4, **style)
    low = [m - s for m, s in zip(middle, deviation, strict=True)]
    high = [m + s for m, s in zip(middle, deviation, strict=True)]
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def main() -> None:
    """Print the tables; write a picture for each data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of the pictures")
    folder = parser.parse_args().folder
    runs = read()
    tables = {"signals": signals(runs), "outcomes": outcomes(runs)}
    print(*tables.values(), sep="\n\n")
    page = folder / "flooding-x.md"
    if page.exists():
        page.write_text(filled(page.read_text(), tables))
    for data, settings in runs.items():
        name = data.replace(", ", "-")
        draw(data, settings["plain"], folder / f"flooding-x-{name}.png")


if __name__ == "__main__":
    main()
