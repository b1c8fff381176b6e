"""`cost.Cost` as SVG and by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lit_adv.pages.parts import safe
from lit_adv.reports import labels
from lit_adv.reports.pictures import chart
from lit_adv.reports.pictures.chart import Chart
from lit_adv.reports.pictures.cost import Cost, Point
from lit_adv.reports.pictures.picture import beside, joined, on
from lit_adv.reports.pictures.scale import Scale, around
from lit_adv.reports.pictures.styles import PLAIN, SERIES
from lit_adv.reports.spread import Spread


@dataclass(frozen=True)
class CostDrawn:
    """The picture.

    Args:
        cost: its figures.
    """

    cost: Cost

    @property
    def name(self) -> str:
        return joined("time", self.cost.data)

    @property
    def title(self) -> str:
        return on(f"{self.cost.metric} against training time", self.cost.data)

    @property
    def caption(self) -> str:
        said = [
            "Crosses: one sample standard deviation each way. Filled, and joined by the line: no "
            "other one is both as fast and as good, by their means alone; whether a difference is "
            "more than chance, the table says. Seconds are those of the machines that the runs ran "
            "on, whatever else these did."
        ]
        if self.cost.chosen:
            said.append(f"Of each choice, its best setting by mean {self.cost.chosen}.")
        return " ".join(said) + beside(self.cost.left_out)

    def html(self) -> str:
        drawn = Chart(self._x(), self._y())
        shapes = [drawn.line(_stairs(self.cost.points, drawn), "line thin", PLAIN)]
        marks: list[str] = []
        for each in self.cost.points:
            x, y = each.seconds, each.metric
            shapes.append(drawn.line([(x.low, y.mean), (x.high, y.mean)], "bar", SERIES[0]))
            shapes.append(drawn.line([(x.mean, y.low), (x.mean, y.high)], "bar", SERIES[0]))
            kind = "point front" if each.front else "point"
            marks.append(
                f'<svg class="{kind}" x="{drawn.across(x.mean)}" y="{drawn.down(y.mean)}">'
                f'<circle r="10"><title>{safe(_said(each))}</title></circle>'
                f'<text y="4.5" text-anchor="middle">{each.letter}</text></svg>'
            )
        body = [*drawn.axes("training time (s)", self.cost.metric), *drawn.inner(shapes), *marks]
        entries = [(_letter(each), _said(each)) for each in self.cost.points]
        height = drawn.top + drawn.height + 52
        said = "; ".join(map(_said, self.cost.points))
        return chart.legend(entries) + chart.drawing(body, height, f"{self.title}. {said}")

    def draw(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        x, y = self._x(), self._y()
        stairs = _stairs(self.cost.points, Chart(x, y))
        axes.plot(*zip(*stairs, strict=True), color=PLAIN.colour, linestyle=":", linewidth=1)
        for each in self.cost.points:
            axes.errorbar(
                each.seconds.mean,
                each.metric.mean,
                xerr=each.seconds.sd or 0,
                yerr=each.metric.sd or 0,
                fmt="o",
                markersize=15,
                color=SERIES[0].colour,
                markerfacecolor=SERIES[0].colour if each.front else "white",
                linewidth=1,
                label=f"{each.letter}  {each.name}",
            )
            colour = "white" if each.front else SERIES[0].colour
            place = (each.seconds.mean, each.metric.mean)
            axes.annotate(
                each.letter, place, color=colour, ha="center", va="center", fontsize=9, zorder=9
            )
        axes.set(xlabel="training time (s)", ylabel=self.cost.metric)
        axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high))
        if x.log:
            axes.set_xscale("log")
        axes.legend(
            [each for each in axes.containers],
            [f"{each.letter}  {each.name}" for each in self.cost.points],
            frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5),
            markerscale=0.4,
        )  # fmt: skip

    def _x(self) -> Scale:
        ends = [end for each in self.cost.points for end in (each.seconds.low, each.seconds.high)]
        return around(ends, log=min(ends) > 0 and max(ends) > 20 * min(ends), margin=0.07)

    def _y(self) -> Scale:
        ends = [end for each in self.cost.points for end in (each.metric.low, each.metric.high)]
        return around(ends, margin=0.08)


def _said(point: Point) -> str:
    return f"{point.name}: {labels.spread(point.metric)}, {_seconds(point.seconds)}"


def _stairs(points: Sequence[Point], drawn: Chart) -> list[tuple[float, float]]:
    """The edge of what the front reaches: from each of its points on until the next one."""
    ahead = sorted((p.seconds.mean, p.metric.mean) for p in points if p.front)
    corners: list[tuple[float, float]] = []
    for x, y in ahead:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return [*corners, (drawn.x.high, corners[-1][1])]


def _seconds(found: Spread) -> str:
    digits = 1 if found.mean < 100 else 0
    sd = "" if found.sd is None else f" \N{PLUS-MINUS SIGN} {found.sd:,.{digits}f}"
    return f"{found.mean:,.{digits}f}{sd} s"


def _letter(point: Point) -> str:
    kind = "point front" if point.front else "point"
    return (
        f'<svg class="swatch {kind}" width="22" height="22" aria-hidden="true">'
        f'<circle cx="11" cy="11" r="10"/><text x="11" y="15.5" text-anchor="middle">'
        f"{point.letter}</text></svg>"
    )
