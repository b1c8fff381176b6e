"""Bounds on information between words and sentences, as InfoBERT uses them (arXiv:2010.02329)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_adv.functional.precision import at_least_float32


def bottleneck(
    words: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """`mean 1/2 ||x - x'||^2` over the words x of the mask, each x' one of them drawn at random."""
    flat, real = at_least_float32(words).flatten(0, 1), mask.flatten()
    weight = real.to(flat.dtype)
    # All real words are as likely, padding never comes; of an empty batch any word does.
    chance = torch.where(real.any(), weight, 1)
    other = torch.multinomial(chance, len(flat), replacement=True, generator=generator)
    square = (flat - flat[other]).square().sum(-1) / 2
    return (square * weight).sum() / weight.sum().clamp(min=1)


def rank(
    sizes: Float[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
    low: float,
    high: float,
    most: int,
) -> tuple[Int[Tensor, "batch most"], Bool[Tensor, "batch most"]]:
    """Places of the words whose sizes rank in `[ceil(low n), ceil(high n))` of an example's n.

    Ranks count from the smallest; words outside the mask have none.

    Returns:
        Places of up to `most` words, and which of these are meant.

    >>> sizes = torch.tensor([[3.0, 1.0, 2.0, 9.0]])
    >>> mask = torch.tensor([[True, True, True, False]])
    >>> rank(sizes, mask, low=0.3, high=1.0, most=2)
    (tensor([[2, 0]]), tensor([[True, True]]))
    """
    order = torch.where(mask, sizes, math.inf).sort(stable=True, dim=1).indices
    count = mask.sum(1, keepdim=True)
    # A hair less, so that a product like 0.28 * 25 = 7.000000000000001 is not rounded up.
    first = (low * count.double() - 1e-9).ceil().long()
    last = (high * count.double() - 1e-9).ceil().long()
    wanted = first + torch.arange(most, device=sizes.device)
    chosen = (wanted < last) & (wanted < count)
    return order.gather(1, wanted.clamp(max=mask.shape[1] - 1)), chosen


def contrast(
    scores: Float[Tensor, "batch tokens batch"], chosen: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, ""]:
    """InfoNCE: `mean T[b, t, b] - logsumexp_c T[b, t, c] + log B`, at most log B nats.

    Args:
        scores: T, of every word with every sentence of the batch.
        chosen: the words that count; with none the bound is 0.
    """
    scores = at_least_float32(scores)
    own = scores.diagonal(dim1=0, dim2=2).T  # [batch, tokens]
    bound = own - scores.logsumexp(-1) + math.log(len(scores))
    weight = chosen.to(bound.dtype)
    return (bound * weight).sum() / weight.sum().clamp(min=1)
