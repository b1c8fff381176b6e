"""Temperature scaling: Guo et al., ICML 2017, arXiv:1706.04599."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAST, MOST = 0.01, 100.0


def fit(logits: Float[Tensor, "examples classes"], labels: Int[Tensor, " examples"]) -> float:
    """The temperature T in [0.01, 100] that minimises the mean of -log softmax(logits / T)_y.

    In b = 1/T the loss is convex, with slope mean_i (E_p[z_i] - z_iy), p = softmax(b z_i): its root
    is found by bisection. Where every example is right with a margin, the loss falls as T does
    and the least T is the answer; where the logits are worse than nothing, the largest.

    Args:
        logits: of each example.
        labels: class of each.
    """
    z = logits.double()
    right = z.gather(1, labels[:, None])[:, 0]

    def slope(b: float) -> float:
        return float(((torch.softmax(b * z, 1) * z).sum(1) - right).mean())

    low, high = 1 / MOST, 1 / LEAST
    if slope(low) >= 0:
        return MOST
    if slope(high) <= 0:
        return LEAST
    for _ in range(60):
        middle = (low * high) ** 0.5  # by ratios: T is a scale
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / (low * high) ** 0.5
