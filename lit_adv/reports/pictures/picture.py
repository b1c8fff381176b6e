"""What a picture can do, and how all of them say the same."""

from typing import Protocol

from matplotlib.figure import Figure


class Picture(Protocol):
    """A picture, whatever it shows."""

    @property
    def name(self) -> str:
        """Of its file, without .png; made of letters, digits, dots, dashes and underscores."""
        ...

    @property
    def title(self) -> str:
        """What it shows."""
        ...

    @property
    def caption(self) -> str:
        """How to read it, and what it does not say."""
        ...

    def html(self) -> str:
        """Legend and drawing, for the page."""
        ...

    def draw(self, figure: Figure) -> None:
        """The same figures by matplotlib."""
        ...


def joined(*parts: str) -> str:
    """A file's name from its parts, as far as there are any.

    >>> joined("over", "flood.b", "")
    'over-flood.b'
    """
    return "-".join(part for part in parts if part)


def on(title: str, data: str) -> str:
    """A title with the data, where there are several."""
    return f"{title} on {data}" if data else title


def beside(left_out: int) -> str:
    """What a caption says of settings that are not drawn."""
    return f" {left_out} more are in the table only." if left_out else ""
