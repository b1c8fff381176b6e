"""`over.Over` as SVG and by matplotlib."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_adv.reports import labels
from lit_adv.reports.pictures import chart
from lit_adv.reports.pictures.chart import Chart
from lit_adv.reports.pictures.over import Line, Over
from lit_adv.reports.pictures.picture import beside, joined, on
from lit_adv.reports.pictures.scale import Scale, around
from lit_adv.reports.pictures.styles import MARKS, PLAIN, SERIES, Style

BEST, VALIDATION = SERIES[1], SERIES[2]


@dataclass(frozen=True)
class OverDrawn:
    """The picture.

    Args:
        over: its figures.
    """

    over: Over

    @property
    def name(self) -> str:
        return joined("over", self.over.key, self.over.data)

    @property
    def title(self) -> str:
        return on(f"{self.over.metric} over {self.over.key}", self.over.data)

    @property
    def caption(self) -> str:
        """What band, dots and marks are, and by which split the best was chosen."""
        over = self.over
        said = ["Dots: single runs."]
        if not over.scattered:
            said.append("Line: mean over seeds; band: one sample standard deviation each way.")
        else:
            said.append("Other settings differ too, so dots are not joined.")
        if over.best:
            said.append(f"The star is the best by mean {over.chosen}, {over.best[2]}.")
        return " ".join(said) + beside(over.left_out)

    def html(self) -> str:
        over = self.over
        drawn = Chart(self._x(), self._y())
        marks: list[str] = []
        shapes: list[str] = []
        if over.plain:
            _, plain = over.plain
            ends = (drawn.x.low, drawn.x.high)
            if plain.sd is not None:
                shapes.append(drawn.band([(x, plain.low, plain.high) for x in ends], PLAIN))
            shapes.append(drawn.line([(x, plain.mean) for x in ends], "line", PLAIN))
        for line, style in zip(over.lines, SERIES, strict=False):
            shapes += _shapes(drawn, line, style)
            marks += [drawn.dot(x, y, style, said) for x, y, said in line.dots]
            if len(over.lines) > 1:
                marks += [drawn.mark(x, found.mean, style) for x, found in line.means]
        if over.validation:
            shapes.append(drawn.line(over.validation, "line", VALIDATION))
        if over.best:
            x, y, said = over.best
            marks.append(drawn.mark(x, y, BEST, "star", f"best by {over.chosen}: {said}"))
        height = drawn.top + drawn.height + 52
        body = [*drawn.axes(over.key, over.metric), *drawn.inner(shapes), *marks]
        return chart.legend(self._legend()) + chart.drawing(
            body, height, f"{self.title}. {self.caption}"
        )

    def draw(self, figure: Figure) -> None:
        over, axes = self.over, figure.add_subplot()
        if over.plain:
            name, plain = over.plain
            axes.axhspan(plain.low, plain.high, color=PLAIN.colour, alpha=0.12, linewidth=0)
            axes.axhline(plain.mean, color=PLAIN.colour, linestyle=PLAIN.on_paper, label=name)
        for line, style in zip(over.lines, SERIES, strict=False):
            _draw(axes, line, style, line.name or over.metric, marks=len(over.lines) > 1)
        if over.validation:
            x, y = zip(*over.validation, strict=True)
            style = {"color": VALIDATION.colour, "linestyle": VALIDATION.on_paper}
            axes.plot(x, y, **style, label=over.chosen)
        if over.best:
            x, y, _ = over.best
            label = f"best by {over.chosen}"
            axes.plot(
                [x], [y], "*", color=BEST.colour, markersize=15, markeredgecolor="white",
                label=label, zorder=5, linestyle="",
            )  # fmt: skip
        x, y = self._x(), self._y()
        axes.set(xlabel=over.key, ylabel=over.metric, xlim=(x.low, x.high), ylim=(y.low, y.high))
        if over.log:
            axes.set_xscale("log")
        axes.legend(frameon=False, fontsize="small")

    def _legend(self) -> list[tuple[str, str]]:
        over = self.over
        entries = []
        for line, style in zip(over.lines, SERIES, strict=False):
            mark = style.mark if len(over.lines) > 1 else "dot"
            lined = not over.scattered
            drawn = chart.swatch(style, line=lined, mark=mark if lined else "dot", band=lined)
            entries.append((drawn, line.name or over.metric))
        if over.validation:
            entries.append((chart.swatch(VALIDATION), over.chosen))
        if over.plain:
            name, plain = over.plain
            said = f"{name}: {labels.spread(plain)}"
            entries.append((chart.swatch(PLAIN, band=plain.sd is not None), said))
        if over.best:
            drawn = chart.swatch(BEST, line=False, mark="star")
            entries.append((drawn, f"best by {over.chosen}"))
        return entries

    def _x(self) -> Scale:
        return around([x for line in self.over.lines for x, _, _ in line.dots], self.over.log, 0.03)

    def _y(self) -> Scale:
        over = self.over
        values = [y for line in over.lines for _, y, _ in line.dots]
        values += [end for line in over.lines for _, s in line.means for end in (s.low, s.high)]
        values += [y for _, y in over.validation]
        if over.plain:
            values += [over.plain[1].low, over.plain[1].high]
        return around(values)


def _shapes(drawn: Chart, line: Line, style: Style) -> list[str]:
    shapes = []
    if any(found.sd is not None for _, found in line.means):
        shapes.append(drawn.band([(x, found.low, found.high) for x, found in line.means], style))
    if line.means:
        shapes.append(drawn.line([(x, found.mean) for x, found in line.means], "line", style))
    return shapes


def _draw(axes: Axes, line: Line, style: Style, label: str, *, marks: bool) -> None:
    x, y, _ = zip(*line.dots, strict=True)
    axes.scatter(
        x, y, s=9, color=style.colour, alpha=0.5, linewidths=0, label=None if line.means else label
    )
    if line.means:
        places = [x for x, _ in line.means]
        low, high = ([getattr(s, end) for _, s in line.means] for end in ("low", "high"))
        axes.fill_between(places, low, high, color=style.colour, alpha=0.15, linewidth=0)
        axes.plot(
            places,
            [found.mean for _, found in line.means],
            color=style.colour,
            linestyle=style.on_paper,
            marker=MARKS[style.mark][1] if marks else "",
            markersize=5,
            label=label,
        )
