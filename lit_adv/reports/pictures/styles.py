"""How series are told apart: by colour (Okabe and Ito's), by dashes and by marks at once."""

from dataclasses import dataclass
from typing import Any

GREY = "#555555"


@dataclass(frozen=True)
class Style:
    """Of one series.

    Args:
        name: class in the page's style sheet, which has another colour in the dark.
        colour: on paper.
        dashes: lengths of dash and gap, in pixels; empty = a solid line.
        mark: its name, see `MARKS`.
    """

    name: str
    colour: str
    dashes: tuple[int, ...]
    mark: str

    @property
    def on_paper(self) -> Any:
        """Its dashes as matplotlib takes them, in widths of the line."""
        return (0, tuple(length / 2 for length in self.dashes)) if self.dashes else "-"


MARKS = {
    "circle": ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "o"),
    "square": ("M-3.6-3.6h7.2v7.2h-7.2z", "s"),
    "triangle": ("M0-4.8L4.6 3.4h-9.2z", "^"),
    "diamond": ("M0-5.2L5.2 0 0 5.2-5.2 0z", "D"),
    "down": ("M0 4.8L4.6-3.4h-9.2z", "v"),
    "plus": ("M-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z", "P"),
    "star": ("M0-9l2.6 5.6 6.1.7-4.5 4.2 1.2 6L0 4.5-5.4 7.5l1.2-6-4.5-4.2 6.1-.7z", "*"),
}
"""Path in pixels around its place, and matplotlib's letter."""

SERIES = (
    Style("s0", "#0072B2", (), "circle"),
    Style("s1", "#D55E00", (7, 4), "square"),
    Style("s2", "#009E73", (2, 3), "triangle"),
    Style("s3", "#CC79A7", (9, 3, 2, 3), "diamond"),
    Style("s4", "#E69F00", (12, 4), "down"),
    Style("s5", "#1C1D1F", (4, 2), "plus"),
)
PLAIN = Style("plain", GREY, (10, 3), "circle")
