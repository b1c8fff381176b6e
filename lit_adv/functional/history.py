"""History: short vectors of every batch's class gradients, for questions asked afterwards."""

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor


class History:
    """Rows whose inner products estimate those of the gradients: of any two batches, of any window.

    Args:
        batches: for each batch the row of each class in it, [size].
    """

    def __init__(self, batches: list[dict[Hashable, Tensor]] | None = None) -> None:
        self.batches = [] if batches is None else batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, window: slice) -> "History":
        """Some of the batches."""
        return History(self.batches[window])

    def append(self, rows: dict[Hashable, Tensor]) -> None:
        """Add a batch."""
        self.batches.append(rows)

    def extend(self, other: "History") -> None:
        """Add the batches of another."""
        self.batches.extend(other.batches)

    def means(self) -> dict[str, Any]:
        """`cross`, `same`, `all` over pairs of different batches, `within` of one; and `pairs`.

        As `Accordance.compute`, by the rows alone.
        """
        cross, same = self._sums("cross"), self._sums("same")
        both = (cross[0] + same[0], cross[1] + same[1])
        kinds = {"cross": cross, "same": same, "all": both}
        means = {name: _mean(*_between(*sums)) for name, sums in kinds.items()}
        pairs = {name: int(_between(*sums)[1]) for name, sums in kinds.items()}
        within = (cross[0].trace(), cross[1].trace())
        return {**means, "within": _mean(*within), "pairs": {**pairs, "within": int(within[1])}}

    def matrix(self, kind: str = "all") -> Tensor:
        """Mean inner product of any two batches' classes, [batches, batches]; NaN without a pair.

        Args:
            kind: `cross`, `same` or `all` pairs of classes. On the diagonal: those within a batch.
        """
        total, count = self._sums(kind)
        return total / count

    def outlying(self, kind: str = "all") -> Tensor:
        """How far each batch's accordance with the others lies from the median, [batches].

        In robust standard deviations (1.4826 median absolute deviations): below -3, say, is a batch
        whose step harms the others more than chance would have it, such as one of wrong labels.
        """
        total, count = self._sums(kind)
        mean = (total.sum(1) - total.diagonal()) / (count.sum(1) - count.diagonal())
        deviation = mean - mean.nanmedian()
        spread = 1.4826 * deviation.abs().nanmedian()
        return deviation / spread.clamp(min=torch.finfo(spread.dtype).tiny)

    def standard_errors(self) -> dict[str, float]:
        """Of `cross`, `same` and `all`: `sqrt((n - 1) / n sum_s (m_s - m)^2)`, m_s without batch s.

        m is the mean of all m_s. The jackknife over batches; where gradients are pure noise it is
        sqrt(2) too large. NaN for fewer than three batches.
        """
        return {name: self._jackknife(name) for name in ("cross", "same", "all")}

    def _jackknife(self, kind: str) -> float:
        if len(self) < 3:
            return math.nan
        total, count = self._sums(kind)
        sums = [2 * (part.sum(1) - part.diagonal()) for part in (total, count)]
        whole, pairs = _between(total, count)
        without = (whole - sums[0]) / (pairs - sums[1])
        spread = (without - without.mean()).square().sum()
        return float(((len(self) - 1) / len(self) * spread).sqrt())

    def _sums(self, kind: str) -> tuple[Tensor, Tensor]:
        """Sum of the inner products of any two batches' classes, and how many there are.

        A row with itself is no pair.
        """
        places = [(s, label) for s, rows in enumerate(self.batches) for label in rows]
        n = len(self.batches)
        if not places:
            return torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
        rows = torch.stack([self.batches[s][label] for s, label in places])
        gram = (rows @ rows.T).double().cpu()
        numbers = {label: number for number, (_, label) in enumerate(places)}
        labels = torch.tensor([numbers[label] for _, label in places])
        alike = labels[:, None] == labels
        wanted = {"cross": ~alike, "same": alike, "all": torch.ones_like(alike)}[kind]
        wanted = (wanted & ~torch.eye(len(places), dtype=torch.bool)).double()
        batch = torch.zeros(n, len(places), dtype=torch.float64)
        batch[torch.tensor([s for s, _ in places]), torch.arange(len(places))] = 1
        return batch @ (gram * wanted) @ batch.T, batch @ wanted @ batch.T


def _between(total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over pairs of different batches."""
    return total.sum() - total.trace(), count.sum() - count.trace()


def _mean(total: Tensor, count: Tensor) -> float:
    return float(total / count) if count else math.nan
