"""The parts of a page that do not depend on what it tells."""

import html
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template


def safe(text: object) -> str:
    """Text as HTML shows it; a bare carriage return would be read back as a newline.

    >>> safe("a < b & 'c'")
    'a &lt; b &amp; &#x27;c&#x27;'
    """
    return html.escape(str(text)).replace("\r", "&#13;")


def fill(package: str, name: str, parts: Mapping[str, str]) -> str:
    """A page's frame with its parts, which are HTML already, and the common style.

    Args:
        package: that holds the frame.
        name: of the frame's file; `$part` stands where a part goes, `$style` where the style goes.
        parts: by name; all of them.
    """
    frame = Template(files(package).joinpath(name).read_text(encoding="utf-8"))
    style = files("lit_adv.pages").joinpath("base.css").read_text(encoding="utf-8")
    return frame.substitute(parts, style=style)


def write(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    # a lone surrogate, which JSON may bring in, has no UTF-8: it becomes a reference
    part.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="")
    part.replace(path)
