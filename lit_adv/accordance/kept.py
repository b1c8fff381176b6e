"""Kept: which batches of a stretch of training are looked at, evenly spaced."""

import math
from typing import Any


class Kept:
    """Chooses batches as they come, and hands them out when their effective batch is whole.

    A checkpoint within an effective batch is that of its beginning; so nothing of one counts before
    its end.

    Args:
        wanted: how many batches, or which share of them; two at least.
        length: batches in the stretch; where that is infinite all are chosen.

    Raises:
        ValueError: a share of an unknown number, or no number of batches.
    """

    def __init__(self, wanted: int | float, length: float) -> None:
        number = isinstance(wanted, int | float) and wanted > 0
        if not number or (isinstance(wanted, float) and wanted > 1):
            raise ValueError(
                f"accordance.batches={wanted}: a number such as 8, or a share in (0, 1] such as 0.1"
            )
        if math.isinf(length) and isinstance(wanted, float):
            raise ValueError(
                f"accordance.batches={wanted}: a share of an epoch of unknown length; give a number"
            )
        self.count = max(2, math.ceil(wanted * length) if isinstance(wanted, float) else wanted)
        self.length = length
        self.position = 0
        """Batches of the stretch whose effective batches are whole."""
        self._open: list[Any] = []
        self._offered = 0

    @property
    def wants_next(self) -> bool:
        """Whether the next batch is chosen."""
        if self.count >= self.length or math.isinf(self.length):
            return True
        place = self.position + self._offered
        return (place + 1) * self.count // self.length > place * self.count // self.length

    def offer(self, item: Any) -> None:
        """The next batch, or what there is to know of it."""
        if self.wants_next:
            self._open.append(item)
        self._offered += 1

    def close(self) -> list[Any]:
        """The effective batch is whole; returns what was chosen of it."""
        chosen, self._open = self._open, []
        self.position += self._offered
        self._offered = 0
        return chosen
