"""Rows in memory, which are asked for by the batch."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset


class RowSet(Dataset[dict[str, np.ndarray]]):
    """A data set that is asked for the rows of a batch, not for single ones."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """Of every row: those of like lengths share a batch."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, rows: Sequence[int]) -> dict[str, np.ndarray]: ...


class Rows(RowSet):
    """Some rows of a set, which keep their numbers."""

    def __init__(self, whole: RowSet, rows: np.ndarray) -> None:
        self.whole, self.rows = whole, rows

    @property
    def lengths(self) -> np.ndarray:
        """Of every row."""
        return self.whole.lengths[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        return self.whole[self.rows[list(rows)].tolist()]
