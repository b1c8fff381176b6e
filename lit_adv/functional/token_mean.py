"""The mean over an example's tokens, of those that count."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def token_mean(
    values: Float[Tensor, "batch tokens"], counted: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, " batch"]:
    """`sum_t c_t v_t / sum_t c_t`; zero where no token counts. What does not count may be NaN.

    >>> token_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([2.])
    """
    sums = torch.where(counted, values, 0).sum(1)
    return sums / counted.sum(1).clamp(min=1)
