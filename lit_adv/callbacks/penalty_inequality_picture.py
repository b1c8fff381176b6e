"""penalty_inequality.png: ratio of the sides and exchange rate, over the steps."""

from collections.abc import Sequence
from itertools import cycle

from matplotlib.figure import Figure

from lit_adv.curves import BLUE, GREY, ORANGE

PANELS = {"ratio": "input side over weight side", "exchange_rate": "exchange rate"}


def draw(series: Sequence[dict[str, float]]) -> Figure:
    """Ratio and exchange rate of each layer and of their sum.

    Args:
        series: per measurement the `step`, and figures by the names they are logged by.
    """
    steps = [row["step"] for row in series]
    places = [name.split("/")[1] for name in series[0] if name.count("/") == 2]
    layers = list(dict.fromkeys(places))
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        if len(layers) > 1:  # first, to lie behind the others
            values = [row[f"inequality/{name}"] for row in series]
            axes.plot(steps, values, color=GREY, linewidth=5, alpha=0.3, label="summed")
        looks = zip(cycle((BLUE, ORANGE)), cycle(("-", "--", ":")), cycle("os^vD"), strict=False)
        for layer, (color, line, marker) in zip(layers, looks, strict=False):
            values = [row[f"inequality/{layer}/{name}"] for row in series]
            look = {"color": color, "linestyle": line, "marker": marker, "markersize": 4}
            axes.plot(steps, values, linewidth=1.2, label=layer, **look)
        axes.set(title=title, xlabel="optimizer step", yscale="log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].axhline(1, color=GREY, linestyle=":", linewidth=1)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
    )
    return figure
