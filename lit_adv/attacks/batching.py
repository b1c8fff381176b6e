"""Rows of unlike length in batches of like length, filled up."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch


def filled(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of the rows of each batch: the longest first, at most `tokens` with padding.

    A batch of n rows, the longest of l tokens, costs n * l; a row longer than `tokens` has a batch
    to itself. The first batch is as large as any, so what memory is needed is known at once.

    >>> filled([2, 9, 3, 4], 8)
    [[1], [3, 2], [0]]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = max(1, int(sizes[order[start]]))
        end = start + max(1, tokens // longest)
        batches.append(order[start:end].tolist())
        start = end
    return batches


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> torch.Tensor:
    """The rows as one tensor, filled up with a value behind, or before: int64 [rows, longest].

    >>> padded([[1, 2], [3]], 0).tolist()
    [[1, 2], [3, 0]]
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    width = int(lengths.max(initial=0))
    places = np.arange(width)
    if left:
        places = places[::-1]
    table = np.full((len(rows), width), value, dtype=np.int64)
    table[places < lengths[:, None]] = np.fromiter(
        chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum())
    )
    return torch.from_numpy(table)
