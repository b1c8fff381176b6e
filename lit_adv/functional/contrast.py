"""Contrastive losses from a matrix of similarities: InfoNCE, and FlatNCE in its safe form."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from lit_adv.functional.precision import at_least_float32


def info_nce(
    scores: Float[Tensor, "batch others"], positive: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """`-log softmax(s)_+ = log(1 + xi)`, with `xi = sum_{i != +} exp(s_i - s_+)`.

    Args:
        scores: similarities over temperature, of each row to its positive and its negatives.
        positive: the place of the positive in each row.
    """
    return cross_entropy(at_least_float32(scores), positive, reduction="none")


def flat_nce(
    scores: Float[Tensor, "batch others"], positive: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """`log xi = logsumexp_{i != +}(s_i) - s_+`, which may be negative (arXiv:2107.01152).

    Its gradient is that of `xi / stop(xi)`, the paper's form, whose value is always 1: minus one on
    the positive, and weights that sum to one on the negatives, however small xi is. InfoNCE's is
    `xi / (1 + xi)` of it, and is rounded away where the margin is wide. Kept in the sum by a factor
    of zero in place of minus infinity, the positive would turn this into InfoNCE (public codes do).

    Without any negative there is nothing to learn, as for InfoNCE: the loss is zero.
    """
    scores = at_least_float32(scores)
    if scores.shape[1] < 2:
        return 0 * scores.sum(1)
    places = torch.arange(scores.shape[1], device=scores.device)
    mine = places == positive.unsqueeze(1)
    negatives = scores.masked_fill(mine, -torch.inf).logsumexp(1)
    return negatives - scores.gather(1, positive.unsqueeze(1)).squeeze(1)
