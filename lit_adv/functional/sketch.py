"""CountSketch: short vectors whose inner products are, on average, those of the long ones."""

from itertools import pairwise

import torch
from torch import Tensor

from lit_adv.functional.vectors import Vector, tensors


class CountSketch:
    """`R v`, `E[R^T R] = I`: every coordinate is added, with a random sign, to one of m buckets.

    `Var <Ra, Rb> = (|a|^2 |b|^2 + <a, b>^2 - 2 sum_i a_i^2 b_i^2) / m` or less: the error of one
    cosine is about `1 / sqrt(m)`. The map is linear, so sketches of sums are sums of sketches, and
    all processes with one seed map alike. Which bucket: consecutive coordinates go to consecutive
    buckets, m at a time from a random one, so that memory is read in its order; two coordinates of
    different runs meet with probability 1/m, those of one run never. Of vectors no longer than m
    all inner products are exact. Signs take one byte per coordinate.

    Source: Charikar, Chen, Farach-Colton 2002; as a projection, Weinberger et al., arXiv:0902.2206.

    Args:
        size: m, buckets.
        seed: of signs and first buckets.

    Raises:
        ValueError: there are no buckets.
    """

    def __init__(self, size: int = 4096, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"sketch={size}: needs a bucket at least")
        self.size, self.seed = size, seed
        self._shapes: list[int] = []
        self._signs: list[Tensor] = []
        self._pieces: list[list[tuple[int, int]]] = []

    def __call__(self, vector: Vector) -> Tensor:
        """The sketch, [size], in float32 at least.

        Args:
            vector: one tensor or several; the same number of coordinates in every call.

        Raises:
            ValueError: it has other coordinates than the first one.
        """
        parts = [part.reshape(-1) for part in tensors(vector)]
        shapes = [part.numel() for part in parts]
        if not self._shapes:
            self._draw(shapes, parts[0].device)
        if shapes != self._shapes:
            raise ValueError("sketch: this vector has other coordinates than the first one")
        dtype = torch.promote_types(parts[0].dtype, torch.float32)
        buckets = torch.zeros(2 * self.size, dtype=dtype, device=parts[0].device)
        for part, signs, pieces in zip(parts, self._signs, self._pieces, strict=True):
            signed = (part * signs).split([length for _, length in pieces])
            for piece, (start, length) in zip(signed, pieces, strict=True):
                buckets[start : start + length] += piece
        return buckets[: self.size] + buckets[self.size :]

    def _draw(self, shapes: list[int], device: torch.device) -> None:
        stream = torch.Generator().manual_seed(self.seed)
        self._shapes = shapes
        runs = -(-sum(shapes) // self.size)
        firsts = torch.randint(0, self.size, (runs,), generator=stream).tolist()
        begin = 0
        for count in shapes:
            signs = torch.randint(0, 2, (count,), generator=stream, dtype=torch.int8)
            self._signs.append(signs.mul_(2).sub_(1).to(device))
            # A run goes on from one tensor to the next: it ends where a multiple of size does.
            end = begin + count
            ends = range(begin - begin % self.size + self.size, end, self.size)
            cuts = [begin, *ends, end] if count else []
            self._pieces.append(
                [(firsts[i // self.size] + i % self.size, j - i) for i, j in pairwise(cuts)]
            )
            begin = end
