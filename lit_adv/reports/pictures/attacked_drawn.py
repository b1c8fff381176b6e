"""`attacked.UnderAttack` as SVG and by matplotlib; widths in per cent: letters keep their size."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from lit_adv.pages.parts import safe
from lit_adv.reports.pictures import chart
from lit_adv.reports.pictures.attacked import Row, UnderAttack
from lit_adv.reports.pictures.picture import beside, joined, on
from lit_adv.reports.spread import Spread

LEFT = 88
"""Pixels for the names of bars, as in the page's style."""
KINDS = (
    ("clean", "clean", "#0072B2", ""),
    ("attacked", "attacked", "#D55E00", "//"),
    ("calibrated", "again", "#E69F00", ".."),
)
"""Name of a bar, class in the page, colour and hatching on paper."""


@dataclass(frozen=True)
class UnderAttackDrawn:
    """The picture.

    Args:
        attacked: its figures.
    """

    attacked: UnderAttack

    @property
    def name(self) -> str:
        return joined("attacks", self.attacked.data)

    @property
    def title(self) -> str:
        return on("Accuracy under attack", self.attacked.data)

    @property
    def caption(self) -> str:
        said = (
            "Means over seeds; lines: one sample standard deviation each way. Clean: of the same "
            "examples before the attack. Calibrated: the same attack on the victim at the "
            "temperature that fits the validation split."
        )
        return said + beside(self.attacked.left_out)

    def html(self) -> str:
        drawn: list[str] = []
        y, before = 0, ""
        for row in self.attacked.rows:
            y += 10 if before and row.name != before else 0
            name = f"{row.name}: " if row.name != before else ""
            drawn.append(
                f'<text x="{-LEFT}" y="{y + 14}"><tspan class="axis">{safe(name)}</tspan>'
                f"{safe(row.attack)}</text>"
            )
            y, before = y + 22, row.name
            for name, kind, _, _, found in _bars(row):
                drawn += _bar(name, kind, found, y)
                y += 16
            y += 6
        said = "; ".join(_said(row) for row in self.attacked.rows)
        entries = [
            (_swatch(kind), name)
            for name, kind, *_ in KINDS
            if any(name == bar[0] for row in self.attacked.rows for bar in _bars(row))
        ]
        return chart.legend(entries) + chart.drawing(drawn, y, f"{self.title}. {said}", "bars")

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(7, max(2.5, 0.9 + 0.62 * len(self.attacked.rows)))
        axes = figure.add_subplot()
        labelled: set[str] = set()
        for place, row in enumerate(self.attacked.rows):
            for at, (name, _, colour, hatch, found) in enumerate(_bars(row)):
                y = place + 0.26 * (at - 1)
                axes.barh(
                    y, 100 * found.mean, 0.24, xerr=100 * (found.sd or 0), color=colour,
                    hatch=hatch, edgecolor="white", linewidth=0,
                    error_kw={"elinewidth": 0.8}, label=None if name in labelled else name,
                )  # fmt: skip
                axes.text(
                    100 * found.high + 1, y, f"{100 * found.mean:.1f}", va="center", fontsize=7
                )
                labelled.add(name)
        names = [f"{row.name}\n{row.attack}" for row in self.attacked.rows]
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set(xlabel="accuracy (%)", xlim=(0, 108))
        axes.legend(frameon=False, fontsize="small", loc="lower center", ncols=3,
                    bbox_to_anchor=(0.5, 1))  # fmt: skip


def _bars(row: Row) -> list[tuple[str, str, str, str, Spread]]:
    """What there is to draw: see `KINDS`."""
    values = (row.clean, row.attacked, row.calibrated)
    return [(*kind, value) for kind, value in zip(KINDS, values, strict=True) if value]


def _bar(name: str, kind: str, found: Spread, y: int) -> list[str]:
    width, middle = 100 * min(max(found.mean, 0), 1), y + 6
    said = f"{100 * found.mean:.1f}"
    drawn = [
        f'<rect class="track" y="{y}" width="100%" height="12" rx="2"/>',
        f'<rect class="{kind}" y="{y}" width="{width:.2f}%" height="12" rx="2">'
        f"<title>{name} {_percent(found)}</title></rect>",
    ]
    if found.sd is not None:
        low, high = 100 * max(found.low, 0), 100 * min(found.high, 1)
        drawn.append(
            f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="{middle}" y2="{middle}"/>'
        )
    return [
        *drawn,
        f'<text x="-8" y="{y + 11}" text-anchor="end">{name}</text>',
        f'<text x="100%" dx="8" y="{y + 11}">{said}%</text>',
    ]


def _percent(found: Spread) -> str:
    said = f"{100 * found.mean:.1f}"
    return said + (f" \N{PLUS-MINUS SIGN} {100 * found.sd:.1f}%" if found.sd is not None else "%")


def _said(row: Row) -> str:
    bars = ", ".join(f"{name} {_percent(found)}" for name, *_, found in _bars(row))
    return f"{row.name} under {row.attack}: {bars}"


def _swatch(kind: str) -> str:
    return (
        '<svg class="swatch" width="28" height="14" aria-hidden="true">'
        f'<rect class="{kind}" y="1" width="28" height="12" rx="2"/></svg>'
    )
