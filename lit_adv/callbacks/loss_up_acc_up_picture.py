"""loss_up_acc_up.png: what the validation loss is made of over the steps, and what became of it."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_adv.curves import BLUE, GREY, ORANGE
from lit_adv.functional.loss_split import BINS

Row = dict[str, float]


def lowest(series: Sequence[Row]) -> Row:
    """The validation with the lowest loss, of several the first; a loss of NaN is never it.

    >>> lowest([{"loss_right": 0.1, "loss_wrong": 0.4}, {"loss_right": 0.2, "loss_wrong": 0.2}])
    {'loss_right': 0.2, 'loss_wrong': 0.2}
    """
    return min(series, key=lambda row: math.inf if math.isnan(_loss(row)) else _loss(row))


def in_words(series: Sequence[Row], worst: float) -> str:
    """What happened between the lowest loss and the last."""
    before, now = lowest(series), series[-1]
    if before is now:
        return f"loss lowest at the last validation, step {now['step']:g}"

    gained = 100 * (now["accuracy"] - before["accuracy"])
    what = (
        f"loss {_loss(now) - _loss(before):+.2f} since step {before['step']:g} "
        f"while accuracy {gained:+.1f} points"
    )
    if not (_loss(now) > _loss(before) and gained >= 0):
        return what
    right, wrong = (now[name] - before[name] for name in ("loss_right", "loss_wrong"))
    share, then = (100 * row["loss_worst_share"] for row in (now, before))
    return (
        f"{what}: {wrong:+.2f} from wrong predictions, {right:+.2f} from right ones;\n"
        f"the worst {100 * worst:g} % of examples hold {share:.0f} % of the loss (then {then:.0f})"
    )


def draw(series: Sequence[Row], histograms: dict[str, list[list[int]]], worst: float) -> Figure:
    """Four panels over one sentence.

    Args:
        series: figures of `loss_split` and `step`, per validation.
        histograms: right and wrong predictions per bin, at the `lowest` loss and at the `last`.
        worst: the share of examples that `loss_worst_share` speaks of.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(in_words(series, worst))
    (parts, share), (confidence, calibration) = figure.subplots(2, 2)
    _parts(parts, series)
    _line(share, series, "loss_worst_share")
    share.axhline(worst, color=GREY, linestyle=":", label="if all losses were the same")
    share.set(title=f"share of the loss held by the worst {100 * worst:g} % of examples")
    share.set_ylim(bottom=0)
    share.legend(frameon=False)
    _confidence(confidence, series, histograms)
    _line(calibration, series, "calibration")
    calibration.set(title="expected calibration error")
    calibration.set_ylim(bottom=0)
    for axes in (parts, share, calibration):
        axes.set(xlabel="optimizer step")
        axes.axvline(lowest(series)["step"], color=GREY, linewidth=1, alpha=0.6)
    for axes in (parts, share, confidence, calibration):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _parts(axes: Axes, series: Sequence[Row]) -> None:
    steps, right, wrong, accuracy = (
        np.array([row[name] for row in series])
        for name in ("step", "loss_right", "loss_wrong", "accuracy")
    )
    loss = right + wrong
    axes.fill_between(steps, 0, right, color=BLUE, alpha=0.4, label="right predictions")
    axes.fill_between(
        steps, right, loss, color=ORANGE, alpha=0.4, hatch="//", label="wrong predictions"
    )
    axes.plot(steps, loss, color="black", marker=".", label="loss")
    axes.set(title="validation loss (grey line: where it is lowest)", ylabel="loss [nats]")
    axes.set_ylim(bottom=0)

    beside = axes.twinx()
    beside.plot(
        steps, accuracy, color=GREY, linestyle="--", marker="s", markersize=4, label="accuracy"
    )
    beside.set(ylabel="accuracy")
    beside.spines["top"].set_visible(False)
    handles = [handle for each in (axes, beside) for handle in each.get_legend_handles_labels()[0]]
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 4}
    axes.legend(handles=handles, frameon=False, columnspacing=1, **below)


def _confidence(axes: Axes, series: Sequence[Row], histograms: dict[str, list[list[int]]]) -> None:
    """Each of the four normalised by itself: the few wrong ones would else lie flat."""
    rows = {"lowest": lowest(series), "last": series[-1]}
    styles = {"lowest": {"linestyle": "--"}, "last": {"linewidth": 2}}
    for when in ("last",) if rows["lowest"] is rows["last"] else ("lowest", "last"):
        for name, colour, counts in zip(
            ("right", "wrong"), (BLUE, ORANGE), histograms[when], strict=True
        ):
            if total := sum(counts):
                axes.stairs(
                    np.array(counts) / total,
                    np.linspace(0, 1, BINS + 1),
                    color=colour,
                    hatch="//" if (when, name) == ("last", "wrong") else "",
                    label=f"{name} at step {rows[when]['step']:g} ({total})",
                    **styles[when],
                )
    axes.set(title="confidence of right and of wrong predictions", xlabel="confidence")
    axes.set(ylabel="share of these predictions")
    axes.legend(frameon=False, loc="upper left")


def _line(axes: Axes, series: Sequence[Row], name: str) -> None:
    axes.plot(
        [row["step"] for row in series], [row[name] for row in series], color=BLUE, marker="."
    )


def _loss(row: Row) -> float:
    return row["loss_right"] + row["loss_wrong"]
