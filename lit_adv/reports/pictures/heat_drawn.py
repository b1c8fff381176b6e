"""`heat.Heat` as SVG and by matplotlib, every mean written in its cell."""

from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lit_adv.pages.parts import safe
from lit_adv.reports import labels
from lit_adv.reports.pictures import chart
from lit_adv.reports.pictures.colours import colour, ink
from lit_adv.reports.pictures.heat import Heat
from lit_adv.reports.pictures.picture import joined, on
from lit_adv.reports.settings import Value

ROW, WIDTH = 40, 3.4
"""Height of a cell in pixels, and least width of one, in units of the letters' size."""


@dataclass(frozen=True)
class HeatDrawn:
    """The picture.

    Args:
        heat: its figures.
    """

    heat: Heat

    @property
    def name(self) -> str:
        heat = self.heat
        return joined("heat", heat.across, heat.up, heat.others, heat.data)

    @property
    def title(self) -> str:
        heat = self.heat
        over = f"{heat.metric} over {heat.across} and {heat.up}"
        return on(f"{over}, {heat.others}" if heat.others else over, heat.data)

    @property
    def caption(self) -> str:
        heat = self.heat
        said = "Means over seeds; the brighter, the better. An empty cell has no finished run."
        if heat.best is None:
            return said
        across, up = heat.best
        return (
            f"{said} The framed cell is the best by mean {heat.chosen}: {heat.across} = "
            f"{labels.value(across)}, {heat.up} = {labels.value(up)}, here "
            f"{labels.spread(heat.cells[heat.best])}."
        )

    def html(self) -> str:
        heat = self.heat
        share = 100 / len(heat.columns)
        drawn = [f'<text x="0" y="14" class="axis">{safe(heat.up)}</text>']
        for row, up in enumerate(reversed(heat.rows)):
            y = 26 + row * ROW
            drawn.append(
                f'<text x="-8" y="{y + 25}" text-anchor="end">{safe(labels.value(up))}</text>'
            )
            for column, across in enumerate(heat.columns):
                drawn += self._cell(across, up, share * column, share, y)
        bottom = 26 + ROW * len(heat.rows)
        for column, across in enumerate(heat.columns):
            x, said = f"{share * (column + 0.5):.2f}%", safe(labels.value(across))
            drawn.append(f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{said}</text>')
        drawn.append(
            f'<text x="50%" y="{bottom + 42}" text-anchor="middle" class="axis">'
            f"{safe(heat.across)}</text>"
        )
        said = f"{self.title}. {self.caption}"
        wide = f'<div style="min-width:{WIDTH * len(heat.columns) + 4:.1f}rem">'
        return f"{wide}{chart.drawing(drawn, bottom + 52, said, 'chart heat')}</div>"

    def draw(self, figure: Figure) -> None:
        heat = self.heat
        axes = figure.add_subplot()
        for x, across in enumerate(heat.columns):
            for y, up in enumerate(heat.rows):
                found = heat.cells.get((across, up))
                if found is None:
                    continue
                shade = heat.shade(found)
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour(shade)))
                said, size = _brief(found.mean), "small" if len(heat.columns) < 10 else "x-small"
                axes.text(x, y, said, ha="center", va="center", color=ink(shade), fontsize=size)
        if heat.best:
            x, y = heat.columns.index(heat.best[0]), heat.rows.index(heat.best[1])
            frame = {"fill": False, "edgecolor": "#D55E00", "linewidth": 3, "zorder": 3}
            axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, **frame))
        axes.set_xlim(-0.5, len(heat.columns) - 0.5)
        axes.set_ylim(-0.5, len(heat.rows) - 0.5)
        axes.set_xticks(range(len(heat.columns)), [labels.value(v) for v in heat.columns])
        axes.set_yticks(range(len(heat.rows)), [labels.value(v) for v in heat.rows])
        axes.set(xlabel=heat.across, ylabel=heat.up)

    def _cell(self, across: Value, up: Value, x: float, width: float, y: int) -> list[str]:
        heat = self.heat
        found = heat.cells.get((across, up))
        place = f'x="{x:.2f}%" y="{y}" width="{width:.2f}%" height="{ROW}"'
        if found is None:
            return [f'<rect class="empty" {place}/>']
        shade = heat.shade(found)
        where = f"{heat.across} = {labels.value(across)}, {heat.up} = {labels.value(up)}"
        n = f"{found.n} seed{'s' if found.n > 1 else ''}"
        said = f"{where}: {labels.spread(found)}, {n}"
        frame = ' class="best"' if (across, up) == heat.best else ""
        return [
            f'<rect {place} fill="{colour(shade)}"><title>{safe(said)}</title></rect>',
            f'<svg {place}{frame}><rect class="frame" width="100%" height="100%"/>'
            f'<text x="50%" y="25" text-anchor="middle" style="fill:{ink(shade)}">'
            f"{_brief(found.mean)}</text></svg>",
        ]


def _brief(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
