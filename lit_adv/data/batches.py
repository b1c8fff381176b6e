"""Batches of examples of like length, so that little is padded."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class LengthGroupedBatches(Sampler[list[int]]):
    """Batches of row numbers: shuffled, sorted by length within pools, cut, and shuffled again.

    Every row comes once per epoch. The order depends on the seed and the epoch alone.

    Args:
        lengths: tokens of every row.
        batch_size: rows per batch; the last may hold fewer.
        seed: of the order.
        pool: batches per pool; larger pools pad less and mix less.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_size: int, *, seed: int = 0, pool: int = 50
    ) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._pool = pool * batch_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self._seed, self._epoch))
        rows = random.permutation(len(self._lengths))
        batches: list[list[int]] = []
        for start in range(0, len(rows), self._pool):
            pool = rows[start : start + self._pool]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            cuts = range(0, len(pool), self._batch_size)
            batches += [pool[cut : cut + self._batch_size].tolist() for cut in cuts]
        # The one smaller batch stays last: it then never stands inside a window of accumulation.
        full = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        random.shuffle(full)
        # A generator: on resuming, Lightning makes the iterator before it tells the epoch.
        yield from full + rest
