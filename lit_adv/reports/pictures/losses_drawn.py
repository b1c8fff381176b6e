"""`losses.Losses` as SVG and by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from lit_adv.pages.parts import safe
from lit_adv.reports.pictures import chart
from lit_adv.reports.pictures.chart import Chart
from lit_adv.reports.pictures.losses import Curve, Losses
from lit_adv.reports.pictures.picture import joined, on
from lit_adv.reports.pictures.styles import PLAIN

LABEL = 15
"""Pixels between the labels at the lines' ends."""


@dataclass(frozen=True)
class LossesDrawn:
    """The picture.

    Args:
        losses: its figures.
    """

    losses: Losses

    @property
    def name(self) -> str:
        return joined("losses", self.losses.data)

    @property
    def title(self) -> str:
        return on("Learning curves", self.losses.data)

    @property
    def caption(self) -> str:
        losses = self.losses
        said = [
            "Thick: validation loss; thin: training loss, means of stretches of steps. Means over "
            "seeds, at the steps that all of them logged."
        ]
        if any(curve.level is not None for curve in losses.curves):
            said.append("Dotted: flood level, from the step on that it holds from.")
        if losses.accordance:
            said.append(f"Below: {losses.accordance}; where it changes its sign, gradients of "
                        "batches no longer agree.")  # fmt: skip
        if losses.left_out:
            said.append(f"{losses.left_out} settings have no curve here: a page has its limits.")
        return " ".join(said)

    def html(self) -> str:
        losses = self.losses
        drawn = Chart(losses.steps(), losses.heights(), height=260)
        body = drawn.axes("" if losses.accordance else "optimizer step", "loss")
        body += drawn.inner([_group(curve, _lines(drawn, curve)) for curve in losses.curves])
        ends = _ends(drawn, losses.shown)
        for curve in losses.curves:
            y = ends.get(curve.number, _end(drawn, curve)) + 4
            label = (
                f'<text class="{curve.style.name}" x="100%" dx="5" y="{y}">#{curve.number}</text>'
            )
            body.append(_group(curve, [label]))
        height = drawn.top + drawn.height + 52
        if losses.accordance:
            below = Chart(losses.steps(), losses.accordances(), top=height - 2, height=110)
            body += below.axes("optimizer step", losses.accordance)
            zero = below.line([(below.x.low, 0), (below.x.high, 0)], "line thin", PLAIN)
            groups = [_group(c, [below.line(c.accordance, "line", c.style)])
                      for c in losses.curves if c.accordance]  # fmt: skip
            body += below.inner([zero, *groups])
            height = below.top + below.height + 52
        names = "; ".join(f"#{curve.number} {_said(curve)}" for curve in losses.shown)
        return self._legend() + chart.drawing(
            body, height, f"{self.title} of {names}. {self.caption}", "chart curves"
        )

    def draw(self, figure: Figure) -> None:
        losses = self.losses
        panels = [2.4, 1] if losses.accordance else [1]
        found = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=panels)
        axes, below = found[0, 0], found[-1, 0]
        for curve in losses.shown:
            style = {"color": curve.style.colour}
            dashed = {**style, "linestyle": curve.style.on_paper}
            if curve.train:
                axes.plot(*zip(*curve.train, strict=True), **style, linewidth=1, alpha=0.7)
            if curve.validation:
                label = f"#{curve.number} {_said(curve)}"
                points = zip(*curve.validation, strict=True)
                axes.plot(*points, **dashed, linewidth=2, label=label)
            if curve.level is not None:
                axes.hlines(curve.level, curve.since, losses.steps().high, **style, linestyle=":")
            if losses.accordance and curve.accordance:
                points = zip(*curve.accordance, strict=True)
                below.plot(*points, **dashed)
        heights = losses.heights()
        axes.set(ylabel="loss", ylim=(heights.low, heights.high))
        below.set(xlabel="optimizer step")
        if losses.accordance:
            below.axhline(0, color=PLAIN.colour, linewidth=0.8)
            below.set(ylabel=losses.accordance.replace("/", "/\n"))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")

    def _legend(self) -> str:
        """Entries of all curves; those of the curves that are not shown yet are hidden too."""
        items = "".join(
            f'<li data-setting="{curve.number}"{_hidden(curve)}>{chart.swatch(curve.style)}'
            f"<span>#{curve.number} {safe(_said(curve))}</span></li>"
            for curve in self.losses.curves
        )
        return f'<ul class="legend">{items}</ul>'


def _said(curve: Curve) -> str:
    return f"{curve.name} ({curve.role})" if curve.role else curve.name


def _hidden(curve: Curve) -> str:
    return "" if curve.role else " hidden"


def _group(curve: Curve, shapes: Sequence[str]) -> str:
    drawn = "".join(shapes)
    return f'<g data-setting="{curve.number}"{_hidden(curve)}>{drawn}</g>'


def _lines(drawn: Chart, curve: Curve) -> list[str]:
    shapes = []
    if len(curve.train) > 1:
        shapes.append(drawn.line(curve.train, "line thin", replace(curve.style, dashes=())))
    if len(curve.validation) > 1:
        shapes.append(drawn.line(curve.validation, "line", curve.style))
    if curve.level is not None:
        level = [(float(curve.since), curve.level), (drawn.x.high, curve.level)]
        shapes.append(drawn.line(level, "line thin", replace(curve.style, dashes=(1, 4))))
    return shapes


def _end(drawn: Chart, curve: Curve) -> float:
    """Where the last point of a curve lies, within the area."""
    y = drawn.down((curve.validation or curve.train)[-1][1])
    return min(max(y, drawn.top), drawn.top + drawn.height)


def _ends(drawn: Chart, curves: Sequence[Curve]) -> dict[int, float]:
    """The same for several, far enough apart to be read."""
    places: dict[int, float] = {}
    lowest = -float("inf")
    for y, number in sorted((_end(drawn, curve), curve.number) for curve in curves):
        lowest = max(y, lowest + LABEL)
        places[number] = lowest
    return places
