"""Inline SVG whose letters keep their size at any width: x in per cent, y in pixels.

Lines and areas, which know no per cent, stand in an inner drawing of 1000 x 1000 that is stretched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_adv.pages.parts import safe
from lit_adv.reports.pictures.scale import Scale, tick
from lit_adv.reports.pictures.styles import MARKS, Style

INNER = 1000


@dataclass(frozen=True)
class Chart:
    """A drawing area with its axes.

    Args:
        x: across.
        y: upwards.
        top: pixels above it.
        height: of the area, in pixels.
    """

    x: Scale
    y: Scale
    top: int = 26
    height: int = 280

    def across(self, value: float) -> str:
        """The place of a value on the x axis."""
        return f"{100 * self.x.share(value):.2f}%"

    def down(self, value: float) -> float:
        """The place of a value on the y axis."""
        return round(self.top + self.height * (1 - self.y.share(value)), 1)

    def axes(self, x_label: str, y_label: str) -> list[str]:
        """Grid lines with their figures, and what they are of."""
        bottom = self.top + self.height
        drawn = [f'<text x="0" y="{self.top - 12}" class="axis">{safe(y_label)}</text>']
        for value in self.y.ticks(5):
            y = self.down(value)
            drawn += [
                f'<line class="grid" x2="100%" y1="{y}" y2="{y}"/>',
                f'<text x="-8" y="{y + 4}" text-anchor="end">{tick(value)}</text>',
            ]
        for value in self.x.ticks(5):
            x = self.across(value)
            drawn += [
                f'<line class="tick" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>',
                f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{tick(value)}</text>',
            ]
        if x_label:
            drawn.append(
                f'<text x="50%" y="{bottom + 42}" text-anchor="middle" class="axis">'
                f"{safe(x_label)}</text>"
            )
        return drawn

    def inner(self, shapes: Sequence[str]) -> list[str]:
        """Lines and areas, cut off at the edges of the area."""
        return [
            f'<svg class="inner" y="{self.top}" width="100%" height="{self.height}" '
            f'viewBox="0 0 {INNER} {INNER}" preserveAspectRatio="none">',
            *shapes,
            "</svg>",
        ]

    def line(self, points: Sequence[tuple[float, float]], kind: str, style: Style) -> str:
        """A line through points, for `inner`; one point is none."""
        dashes = f' stroke-dasharray="{_dashes(style)}"' if style.dashes else ""
        return f'<path class="{kind} {style.name}"{dashes} d="M{self._through(points)}"/>'

    def band(self, sides: Sequence[tuple[float, float, float]], style: Style) -> str:
        """The area between a lower and an upper side, given as (x, low, high), for `inner`."""
        there = self._through([(x, low) for x, low, _ in sides])
        back = self._through([(x, high) for x, _, high in reversed(sides)])
        return f'<path class="band {style.name}" d="M{there}L{back}z"/>'

    def mark(self, x: float, y: float, style: Style, mark: str = "", title: str = "") -> str:
        """A mark at a place, with the words that the pointer finds there."""
        path, said = MARKS[mark or style.mark][0], f"<title>{safe(title)}</title>" if title else ""
        return (
            f'<svg class="mark {style.name}" x="{self.across(x)}" y="{self.down(y)}">'
            f'<path d="{path}">{said}</path></svg>'
        )

    def dot(self, x: float, y: float, style: Style, title: str) -> str:
        """A single run."""
        return (
            f'<circle class="dot {style.name}" cx="{self.across(x)}" cy="{self.down(y)}" r="2.8">'
            f"<title>{safe(title)}</title></circle>"
        )

    def _through(self, points: Sequence[tuple[float, float]]) -> str:
        return "L".join(
            f"{_place(self.x.share(x))} {_place(1 - self.y.share(y))}" for x, y in points
        )


def drawing(shapes: Sequence[str], height: int, said: str, kind: str = "chart") -> str:
    """The whole drawing, with what it says to those who do not see it."""
    return "\n".join(
        [
            f'<svg class="{kind}" role="img" aria-label="{safe(said)}" height="{height}">',
            *shapes,
            "</svg>",
        ]
    )


def swatch(style: Style, *, line: bool = True, mark: str = "", band: bool = False) -> str:
    """A piece of a series, for a legend."""
    shapes = []
    if band:
        shapes.append(f'<rect class="band {style.name}" width="28" height="14"/>')
    if line:
        dashes = f' stroke-dasharray="{_dashes(style)}"' if style.dashes else ""
        shapes.append(f'<path class="line {style.name}"{dashes} d="M0 7h28"/>')
    if mark == "dot":
        shapes.append(f'<circle class="dot {style.name}" cx="14" cy="7" r="2.8"/>')
    elif mark:
        path = MARKS[mark][0]
        shapes.append(f'<path class="mark {style.name}" transform="translate(14 7)" d="{path}"/>')
    drawn = "".join(shapes)
    return f'<svg class="swatch" width="28" height="14" aria-hidden="true">{drawn}</svg>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """What swatches stand for, given as (swatch, text)."""
    items = "".join(f"<li>{drawn}<span>{safe(text)}</span></li>" for drawn, text in entries)
    return f'<ul class="legend">{items}</ul>'


def _dashes(style: Style) -> str:
    return " ".join(map(str, style.dashes))


def _place(share: float) -> str:
    return f"{INNER * min(max(share, -1), 2):.1f}".removesuffix(".0")
