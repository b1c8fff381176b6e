"""Batches of examples of like length, so that little is padded, dealt out to the processes."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DistributedSampler, Sampler


class LengthGroupedBatches(Sampler[list[int]]):
    """Batches of row numbers: shuffled, sorted by length within pools, cut, and shuffled again.

    Every row comes once per epoch. The order depends on the seed and the epoch alone. Several
    processes share the batches that one process would have at `num_replicas` times the batch size:
    each takes every `num_replicas`-th row of each, so that all have as many batches, of like
    lengths. Only where the last batch has too few rows for all does it get some of the one before,
    or, at one row per process, join it.

    What a pool does to 8530 film reviews in batches of 32: the share of real tokens, and the share
    of pairs in a batch that meet again in the next epoch's. (Of a small set a pool is much: 2239
    rows, 70 batches, 28 % of the pairs at 50.)

        pool            1      10      25      50     100   all rows
        real         0.52    0.89    0.95    0.97    0.99       0.99
        meet again  0.004   0.025   0.051   0.079   0.114      0.159

    Args:
        lengths: tokens of every row.
        batch_size: rows per batch and process; the last may hold fewer.
        seed: of the order.
        pool: batches per pool; larger pools pad less and mix less.
        shuffle: False = all rows in the order of their lengths.
        count: batches per epoch, begun anew or broken off; None = every row once.
        num_replicas: processes that share the batches.
        rank: which of them this is, from 0.

    Raises:
        ValueError: there are fewer rows than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        pool: int = 50,
        shuffle: bool = True,
        count: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if len(lengths) < num_replicas:
            raise ValueError(
                f"trainer.devices={num_replicas}: a split has {len(lengths)} rows, not one for "
                f"each process; set {len(lengths)} or fewer, or give more rows"
            )
        self.batch_size = batch_size * num_replicas
        """Rows of all processes together."""
        self.first = 0
        """Batch of the epoch at which new iterators begin."""
        self.epoch, self.seed, self.shuffle = 0, seed, shuffle
        self.num_replicas, self.rank = num_replicas, rank
        self._lengths = np.asarray(lengths)
        self._pool = pool * self.batch_size
        joined = self.batch_size == num_replicas
        once = len(lengths) // num_replicas if joined else -(-len(lengths) // self.batch_size)
        self._count = once if count is None else count

    @property
    def order(self) -> dict[str, int]:
        """What the order of an epoch depends on."""
        return {"rows": len(self._lengths), "batch_size": self.batch_size, "seed": self.seed}

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        return self._from(self.first)

    def _from(self, first: int) -> Iterator[list[int]]:
        # A generator: on resuming, Lightning makes the iterator before it tells the epoch.
        batches = [batch[self.rank :: self.num_replicas].tolist() for batch in self._shared()]
        for number in range(first, len(self)):
            yield batches[number % len(batches)]

    def _shared(self) -> list[np.ndarray]:
        """Batches of all processes together, in their order."""
        if self.shuffle:
            random = np.random.default_rng((self.seed, self.epoch))
            rows = random.permutation(len(self._lengths))
            pools = [rows[at : at + self._pool] for at in range(0, len(rows), self._pool)]
            batches = [batch for pool in pools for batch in self._cut(pool)]
            # The one smaller batch stays last: it never stands inside a window of accumulation.
            full = [batch for batch in batches if len(batch) == self.batch_size]
            rest = [batch for batch in batches if len(batch) < self.batch_size]
            random.shuffle(full)
            batches = full + rest
        else:
            batches = self._cut(np.arange(len(self._lengths)))
        if len(batches[-1]) < self.num_replicas:
            both = np.concatenate(batches[-2:])
            places = [-self.num_replicas] if len(both) >= 2 * self.num_replicas else []
            batches[-2:] = np.split(both, places)
        return batches

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """Sorted by length, in batches."""
        rows = rows[np.argsort(self._lengths[rows], kind="stable")]
        return [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]


class SharedBatches(LengthGroupedBatches, DistributedSampler[list[int]]):
    """The same, by a kind that Lightning takes as it is: it deals out all others by itself."""
