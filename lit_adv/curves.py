"""curves.png: training and validation loss over the steps, with the flood level."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito: distinct to the colour-blind


def draw(
    metrics: Path, picture: Path, *, title: str, level: float | None = None, since: int = 0
) -> None:
    """Draw the losses of one run.

    Args:
        metrics: the run's metrics.csv.
        picture: file to write.
        title: what was run.
        level: flood level, or None.
        since: the step it holds from.
    """
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    train, validation = _series(rows, "train/loss"), _series(rows, "val/loss")

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    if train:
        axes.plot(*zip(*train, strict=True), color=BLUE, alpha=0.3, linewidth=1)
        axes.plot(*zip(*_smooth(train), strict=True), color=BLUE, linewidth=2, label="training")
    if validation:
        points = tuple(zip(*validation, strict=True))
        axes.plot(
            *points, color=ORANGE, linewidth=2, linestyle="--", marker="o", label="validation"
        )
    if level is not None:
        right = max((step for step, _ in train), default=since)
        axes.hlines(level, since, right, GREY, ":", label=f"flood level {level:.3g}")
        if since:
            axes.axvline(since, color=GREY, linewidth=0.8)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    figure.savefig(picture, dpi=150)


def _series(rows: list[dict[str, str]], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]


def _smooth(points: list[tuple[float, float]], keep: float = 0.8) -> list[tuple[float, float]]:
    """Exponential mean of the batches' losses: single batches scatter more than they tell."""
    smooth: list[tuple[float, float]] = []
    mean = points[0][1]
    for step, value in points:
        mean = keep * mean + (1 - keep) * value
        smooth.append((step, mean))
    return smooth
