"""Positions of a batch that hold the same word: rows of an embedding table, without the table."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_adv.functional.precision import at_least_float32


def sum_by_word(
    values: Float[Tensor, "batch tokens width"],
    words: Int[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch tokens"]]:
    """At every position of the mask, the sum over all positions of its word, and their number.

    Elsewhere the sum is zero and the number one. No size depends on the words, so the host need
    not wait for a device to tell one.

    >>> words, mask = torch.tensor([[7, 8, 7]]), torch.tensor([[True, True, True]])
    >>> sum_by_word(torch.tensor([[[1.0], [2.0], [3.0]]]), words, mask)[0].flatten()
    tensor([4., 2., 4.])
    """
    values = at_least_float32(torch.where(mask.unsqueeze(-1), values, 0))
    row = _rows(words.flatten())
    sums = torch.zeros_like(values).flatten(0, 1)
    sums = sums.index_add_(0, row, values.flatten(0, 1))[row].view_as(values)
    count = torch.zeros(row.shape, dtype=values.dtype, device=values.device)
    count = count.index_add_(0, row, mask.flatten().to(values.dtype))[row].view(mask.shape)
    return torch.where(mask.unsqueeze(-1), sums, 0), torch.where(mask, count, 1)


@torch.no_grad()
def unit(
    grad: Float[Tensor, "batch tokens width"],
    words: Int[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "batch tokens width"]:
    """`G / ||G||_F` of the table's gradient G, as every position sees it; zero where G is.

    A batch with a gradient that is not finite has no direction at all.
    """
    sums, count = sum_by_word(grad, words, mask)
    finite, largest = sums.isfinite().all(), sums.abs().max()
    scaled = sums / torch.where(largest > 0, largest, 1)
    # Every row of the table is there as often as its word is.
    length = (scaled.square().sum(-1) / count).sum().sqrt()
    return torch.where(finite & (largest > 0), scaled / length.clamp(min=1e-9), 0)


def _rows(words: Int[Tensor, " positions"]) -> Int[Tensor, " positions"]:
    """Numbers from 0 on, the same for the same word."""
    ordered, order = words.sort()
    new = torch.zeros_like(ordered)
    new[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(order).scatter_(0, order, new.cumsum(0))
