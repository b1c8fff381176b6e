"""From the losses of a batch's examples to the number that the weights descend.

At exactly the flood level the slope is that of the unflooded loss, so level 0 changes nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def slope(
    loss: Float[Tensor, "*shape"], level: float | Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """`+1` at or above the flood level, `-1` below it (there the weights climb).

    A NaN keeps the slope 1, so flooding cannot hide it: `sign(NaN)` would be 0.
    """
    return torch.where(loss < level, -torch.ones_like(loss), torch.ones_like(loss))


def flood(losses: Float[Tensor, " batch"], level: float) -> Float[Tensor, ""]:
    """`|L - b| + b` of the batch's mean loss L: Ishida et al., ICML 2020, arXiv:2002.08709.

    >>> flood(torch.tensor([0.1, 0.3]), level=0.5)
    tensor(0.8000)
    """
    loss = losses.mean()
    return torch.where(loss < level, 2 * level - loss, loss)


def iflood(losses: Float[Tensor, " batch"], level: float) -> Float[Tensor, ""]:
    """`mean_i (|l_i - b| + b)`, each example by itself: Xie et al., ICLR 2022 (iFlood).

    >>> iflood(torch.tensor([0.1, 0.9]), level=0.5)
    tensor(0.9000)
    """
    return torch.where(losses < level, 2 * level - losses, losses).mean()
