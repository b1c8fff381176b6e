"""accordance.png: gradient accordance and validation loss over the steps, sign changes marked."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lit_adv.accordance.readings import SERIES, Reading, changes
from lit_adv.curves import BLUE, GREY, ORANGE

# Okabe and Ito: distinct to the colour-blind; and by their lines in grey.
STYLES = {
    "cross": (BLUE, "-", "o", "other classes"),
    "same": ("#009E73", "--", "s", "same class"),
    "all": ("#56B4E9", "-.", "^", "all pairs"),
    "validation": ("#CC79A7", "-", "D", "against held-out data"),
}


def draw(
    readings: Sequence[Reading],
    validation: Sequence[Sequence[float]],
    path: Path,
    *,
    marked: str,
) -> None:
    """Draw one training.

    Args:
        readings: of its windows.
        validation: step and validation loss.
        path: file to write.
        marked: the series whose sign changes are marked.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for series in SERIES:
        points = [r for r in readings if series in r.values]
        if not points:
            continue
        color, line, marker, label = STYLES[series]
        style = {"color": color, "linestyle": line, "marker": marker, "markersize": 4}
        errors = [reading.error(series) for reading in points]
        values = [reading.values[series] for reading in points]
        steps = [reading.step for reading in points]
        axes.errorbar(steps, values, errors, label=label, capsize=2, elinewidth=1, **style)
    axes.axhline(0, color=GREY, linewidth=1)
    label = f"sign change ({STYLES[marked][3]})"
    for reading in changes(readings, marked, hysteresis=1.0):
        axes.axvline(reading.step, color=GREY, linestyle=":", label=label)
        label = None  # once in the legend
    axes.set(xlabel="optimizer step", ylabel="gradient accordance")
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    if validation:
        losses = axes.twinx()
        losses.plot(
            *zip(*validation, strict=True), color=ORANGE, linewidth=2, label="validation loss"
        )
        losses.set_ylabel("validation loss", color=ORANGE)
        losses.spines["top"].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
