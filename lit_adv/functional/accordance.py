"""Gradient accordance (Flooding-X, Liu et al., ACL 2022), streaming and exact."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lit_adv.functional.history import History
from lit_adv.functional.sketch import CountSketch
from lit_adv.functional.vectors import Vector, dot, tensors

_ALL = object()  # no class: all of a batch so far

Normalize: TypeAlias = Literal["cosine", "none"]
Gradients: TypeAlias = Mapping[Any, Vector] | Iterable[tuple[Any, Vector]]


class Accordance:
    """Mean of `<g_si, g_tj>` over all pairs of classes i, j in different batches s, t.

    g_si is the gradient of the mean loss over the examples of class i in batch s, by default
    divided by its length: a mean of cosines. Positive: a step on one batch lowers the loss of the
    other (`l_t(theta - lr g_s) - l_t(theta) = -lr <g_s, g_t> + O(lr^2)`). With

        A_i = sum_s g_si,   W_ij = sum_s <g_si, g_sj>,
        n_i = batches with class i,   n_ij = batches with both,

    the sum over ordered pairs s != t is `<A_i, A_j> - W_ij`, and their number `n_i n_j - n_ij`: one
    vector per class, however many batches, and all four add up over parts of the data. A class
    that is absent from a batch, or whose gradient is not finite (or, for cosines, zero), has no
    pairs there. Means weigh pairs alike; a mean over batches of means over pairs is another where
    classes are absent.

    The paper takes the batch level over classes i != j (`cross`), as far as it can be read from
    summaries; neither the formula nor code was ever released (qinliu9/Flooding-X has a fixed flood
    level). Cosines by class are the stiffness of Fort et al., arXiv:1901.09491.

    Memory: a vector per class, those of the batch at hand (without `matrix` one for all of them),
    and the sketches.

    Args:
        normalize: `cosine` or `none`, inner products.
        matrix: whether to tell the pairs of classes apart.
        sketch: makes a short vector of each gradient, from which standard errors, single pairs and
            outlying batches can be had; None = none of these.
        exact: whether to keep the vectors A; if not, sketches stand in for them.
        total: adds up a number over processes that hold a part of each vector.

    Raises:
        ValueError: no such `normalize`, or neither exact nor sketched.
    """

    def __init__(
        self,
        normalize: Normalize = "cosine",
        *,
        matrix: bool = True,
        sketch: CountSketch | None = None,
        exact: bool = True,
        total: Callable[[Tensor], Tensor] = lambda number: number,
    ) -> None:
        self.normalize: Normalize = normalize
        if normalize not in ("cosine", "none"):
            raise ValueError(f"normalize={normalize}: choose cosine or none")
        if not exact and sketch is None:
            raise ValueError("exact=False: needs a sketch to stand in for the sums of gradients")
        self.matrix, self.sketch, self.exact = matrix, sketch, exact
        self._total = total
        self.sums: dict[Hashable, list[Tensor]] = {}  # A
        self.inner: dict[frozenset[Hashable], float] = defaultdict(float)  # W
        self.together: Counter[frozenset[Hashable]] = Counter()  # n
        self.batches = 0
        self.history = History()

    def update(self, gradients: Gradients) -> None:
        """Add one batch.

        Args:
            gradients: the gradient of each class in it, or pairs of class and gradient, which may
                be made one at a time.

        Raises:
            ValueError: a class comes twice.
        """
        held: dict[Hashable, tuple[list[Tensor], float, int]] = {}
        rows: dict[Hashable, Tensor] = {}
        seen: set[Hashable] = set()
        for label, vector in gradients.items() if isinstance(gradients, Mapping) else gradients:
            if label in seen:
                raise ValueError(f"update: class {label} comes twice in one batch")
            seen.add(label)
            # In a method of its own: a gradient is let go before the next one is made.
            self._add(label, tensors(vector), held, rows)
        self.batches += 1
        self.history.append(rows)

    @torch.no_grad()  # here: what makes gradients one at a time needs its graph
    def _add(
        self,
        label: Hashable,
        gradient: list[Tensor],
        held: dict[Hashable, tuple[list[Tensor], float, int]],
        rows: dict[Hashable, Tensor],
    ) -> None:
        """One gradient of the batch at hand, of which `held` has the earlier ones or their sum."""
        length = math.sqrt(self._dot(gradient, gradient))
        if not math.isfinite(length) or (self.normalize == "cosine" and length == 0):
            return
        factor = 1 / length if self.normalize == "cosine" else 1.0
        self._count(frozenset([label]), (factor * length) ** 2, 1)
        for other, (theirs, scale, present) in held.items():
            pair = frozenset([label, other]) if self.matrix else frozenset[Hashable]()
            self._count(pair, factor * scale * self._dot(gradient, theirs), present)
        if self.matrix or not held:
            held[label] = (gradient, factor, 1)
        else:
            ((before, by, present),) = held.values()
            held.clear()
            held[_ALL] = (_sum((before, by), (gradient, factor)), 1.0, present + 1)
        if self.exact:
            if label not in self.sums:
                self.sums[label] = [_zeros(part) for part in gradient]
            for part, more in zip(self.sums[label], gradient, strict=True):
                part.add_(more, alpha=factor)
        if self.sketch is not None:
            rows[label] = self._total(factor * self.sketch(gradient))

    def merge(self, other: "Accordance") -> None:
        """Add the batches of another, which had the same options and none of the same batches."""
        self.load_state_dict(other.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All of it, in plain containers."""
        return {"sums": self.sums, **self.counts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Add all of it: what is empty becomes the other."""
        for label, theirs in state["sums"].items():
            if label not in self.sums:
                self.sums[label] = [part.clone() for part in theirs]
                continue
            for part, more in zip(self.sums[label], theirs, strict=True):
                part.add_(more)
        self.add_counts(state)

    def counts(self) -> dict[str, Any]:
        """What is small: all but the sums of gradients."""
        pairs = [[list(pair), self.inner[pair], n] for pair, n in self.together.items()]
        return {"pairs": pairs, "batches": self.batches, "rows": self.history.batches}

    def add_counts(self, counts: dict[str, Any]) -> None:
        """Add what is small of another."""
        for pair, inner, times in counts["pairs"]:
            self._count(frozenset(pair), inner, times)
        self.batches += counts["batches"]
        self.history.extend(History(list(counts["rows"])))

    def compute(self) -> dict[str, Any]:
        """The means.

        Returns:
            `cross` (classes i != j), `same` (i = j) and `all`: means over pairs of different
            batches; `within`: over classes i != j of one batch; `pairs`: how many pairs each of
            these is a mean of; `batches`; `classes`, and `matrix`, [classes, classes], in their
            order, if they are told apart; `standard_error` of the first three, by the jackknife
            over batches, if sketched. NaN where there is no pair.
        """
        errors = self.history.standard_errors() if self.sketch is not None else {}
        common = {"batches": self.batches, "standard_error": errors}
        if not self.exact:
            return {**self.history.means(), **common}
        labels = list(self.sums)
        n = torch.tensor([self.together[frozenset([label])] for label in labels], dtype=torch.long)
        gram = torch.zeros(len(labels), len(labels), dtype=torch.float64)
        for i, a in enumerate(labels):
            for j in range(i if self.matrix else len(labels)):
                gram[i, j] = gram[j, i] = self._dot(self.sums[a], self.sums[labels[j]])
            gram[i, i] = self._dot(self.sums[a], self.sums[a])
        own = {pair: value for pair, value in self.inner.items() if len(pair) == 1}
        within = sum(self.inner.values(), 0.0) - sum(own.values(), 0.0)  # of unordered pairs
        together = sum(count for pair, count in self.together.items() if len(pair) != 1)
        same = float(gram.trace()) - sum(own.values())
        everything = self._everything(gram) - sum(own.values()) - 2 * within
        pairs = {
            "same": int((n * (n - 1)).sum()),
            "all": int(n.sum() ** 2 - n.sum()) - 2 * together,
            "within": 2 * together,
        }
        pairs["cross"] = pairs["all"] - pairs["same"]
        sums = {"same": same, "all": everything, "within": 2 * within, "cross": everything - same}
        means = {
            name: _over(sums[name], pairs[name]) for name in ("cross", "same", "all", "within")
        }
        outcome = {**means, "pairs": pairs, **common, "classes": labels}
        return {**outcome, "matrix": self._matrix(labels, gram, n)} if self.matrix else outcome

    def _everything(self, gram: Tensor) -> float:
        """Squared length of the sum of all gradients."""
        if self.matrix or not self.sums:
            return float(gram.sum())
        # Tensor by tensor: a sum of its own would be one vector more.
        squares = []
        for first, *others in zip(*self.sums.values(), strict=True):
            whole = first.clone()
            for part in others:
                whole += part
            squares.append(dot([whole], [whole]))
        return float(self._total(torch.stack(squares).sum()))

    def _matrix(self, labels: list[Hashable], gram: Tensor, n: Tensor) -> Tensor:
        mean = torch.full_like(gram, math.nan)
        for i, a in enumerate(labels):
            for j, b in enumerate(labels):
                pair = frozenset([a, b])
                count = int(n[i] * n[j]) - self.together[pair]
                mean[i, j] = _over(float(gram[i, j]) - self.inner.get(pair, 0.0), count)
        return mean

    def _count(self, pair: frozenset[Hashable], inner: float, times: int) -> None:
        self.inner[pair] += inner
        self.together[pair] += times

    def _dot(self, a: list[Tensor], b: list[Tensor]) -> float:
        return float(self._total(dot(a, b)))


def _sum(one: tuple[list[Tensor], float], two: tuple[list[Tensor], float]) -> list[Tensor]:
    """Both gradients, each times its factor, in new tensors."""
    (a, by), (b, alpha) = one, two
    return [_zeros(x).add_(x, alpha=by).add_(y, alpha=alpha) for x, y in zip(a, b, strict=True)]


def _zeros(part: Tensor) -> Tensor:
    return torch.zeros_like(part, dtype=torch.promote_types(part.dtype, torch.float32))


def _over(total: float, count: int) -> float:
    return total / count if count else math.nan
