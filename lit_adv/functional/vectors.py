"""Gradients as vectors: one tensor, or the tensors of all weights."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Vector: TypeAlias = Tensor | Sequence[Tensor]

PIECE = 2**18


def tensors(vector: Vector) -> list[Tensor]:
    """The vector as a list of tensors."""
    return [vector] if isinstance(vector, Tensor) else list(vector)


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product in float64, []: of pieces in float32 at least, added up in float64.

    One float32 sum over millions of coordinates would lose what lies below its own rounding.
    """
    products = [
        x.dot(y)
        for whole, other in zip(a, b, strict=True)
        for x, y in zip(_pieces(whole), _pieces(other), strict=True)
    ]
    return torch.stack(products).double().sum()


def _pieces(part: Tensor) -> Sequence[Tensor]:
    wide = torch.promote_types(part.dtype, torch.float32)
    return part.reshape(-1).to(wide).split(PIECE)
