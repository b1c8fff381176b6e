"""Cells of a table that are lists."""

from collections.abc import Mapping, Sequence
from typing import Any


def lists(cells: Sequence[Any], key: str, split: str) -> list[list[Any]]:
    """The cells of a column, each of which has to be a list.

    Args:
        cells: of the rows.
        key: the setting that names the column, as errors say it.
        split: the table's name.

    Raises:
        ValueError: one is none.
    """
    for row, cell in enumerate(cells, start=1):
        if isinstance(cell, str | Mapping) or not isinstance(cell, Sequence):
            raise ValueError(
                f"{key}: row {row} of the {split} split has {cell!r}, which is no list"
            )
    return [list(cell) for cell in cells]
