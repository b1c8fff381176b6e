"""Rules for the first weights of linear maps: the variance of a weight with m inputs, n outputs."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from lit_adv.ranges import one_of

Init: TypeAlias = Literal["own", "bert", "lecun", "he", "glorot", "geometric", "quadratic"]
BERT_STD = 0.02
TRUNCATED_STD = 0.8796256610342398
"""Standard deviation of a standard normal variable that is cut at two."""


def initialise(network: nn.Module, rule: Init = "own") -> None:
    """Draw the weights of all linear and convolutional layers anew by this rule; biases are zero.

    Tables of words, positions and norms stay as they are.

    Args:
        network: from scratch.
        rule: `own`, as the network comes; or one of `variance`.

    Raises:
        ValueError: there is no such rule.
    """
    one_of(get_args(Init), "model.init", rule)
    if rule == "own":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            m, n = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            draw(layer.weight, variance(rule, m, n), truncated=rule == "bert")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def variance(rule: Init, m: int, n: int) -> float:
    """Of each weight of a map from m to n numbers (kexue.fm/archives/8620, 8725, 8747).

    * `lecun` 1 / m, which keeps the variance forward; `he` 2 / m, behind relu.
    * `glorot` 2 / (m + n), the arithmetic mean of what forward and backward want;
      `geometric` 1 / sqrt(m n), which keeps it there and back where maps to n and back to m follow
      each other; `quadratic` (m + n) / (m^2 + n^2), the least squares of both.
    * `bert` 0.02^2 cut at two standard deviations, so that 0.0176^2 is left, whatever the size:
      half of what lecun gives 768 inputs. Layers behind a residual connection begin nearer to doing
      nothing.

    >>> variance("glorot", 768, 3072) == 2 / 3840
    True
    """
    return {
        "lecun": 1 / m,
        "he": 2 / m,
        "glorot": 2 / (m + n),
        "geometric": (m * n) ** -0.5,
        "quadratic": (m + n) / (m**2 + n**2),
        "bert": (BERT_STD * TRUNCATED_STD) ** 2,
    }[rule]


@torch.no_grad()
def draw(weight: torch.Tensor, variance: float, *, truncated: bool) -> None:
    """Normal numbers of this variance, in place; truncated ones are never beyond two of theirs."""
    std = variance**0.5
    if not truncated:
        weight.normal_(0, std)
        return
    whole = std / TRUNCATED_STD  # PyTorch's bounds are numbers, not standard deviations
    nn.init.trunc_normal_(weight, std=whole, a=-2 * whole, b=2 * whole)
