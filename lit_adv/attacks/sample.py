"""Which examples are attacked: a seeded, shuffled, stratified sample."""

from collections.abc import Sequence

import numpy as np


def stratified(labels: Sequence[int | float], n: int, seed: int) -> list[int]:
    """Rows of a sample of n in which every class has its share of the whole, in random order.

    Shares are rounded by largest remainder, the smaller class label first among equals.

    >>> rows = stratified([0] * 60 + [1] * 30 + [2] * 10, 10, seed=0)
    >>> sorted(rows) != rows, [sum(a <= row < b for row in rows) for a, b in ((0, 60), (60, 90))]
    (True, [6, 3])
    """
    random = np.random.default_rng(seed)
    classes, counts = np.unique(np.asarray(labels), return_counts=True)
    n = min(n, len(labels))
    sizes, remainders = np.divmod(counts * n, max(1, len(labels)))  # whole numbers: ties are exact
    most_left = np.argsort(-remainders, kind="stable")
    sizes[most_left[: n - sizes.sum()]] += 1

    rows: list[int] = []
    for label, size in zip(classes, sizes, strict=True):
        of_class = np.flatnonzero(np.asarray(labels) == label)
        rows += random.permutation(of_class)[:size].tolist()
    return random.permutation(rows).astype(int).tolist()
