"""Gradients of single examples, all at once: `torch.func`'s vmap over grad."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_map

Losses = Callable[[dict[str, Tensor], Any], Tensor]


def example_gradients(
    losses: Losses, weights: Mapping[str, Tensor], batch: Any, *, randomness: str = "error"
) -> dict[str, Tensor]:
    """`d l_i / d theta` of every example i, [examples, *shape of the weight] by name.

    For accordance between examples each of them is a batch of one class:

        for i in range(examples):
            accordance.update({0: [gradient[i] for gradient in gradients.values()]})

    Of transformers a padding mask has to be boolean, [batch, 1, 1, tokens], or none at all: theirs
    ask whether there is any padding, which vmap cannot answer. Within
    `attention.twice_differentiable()` it needs no slow fallback of fused attention.

    Args:
        losses: from weights by name and a batch to losses, [examples]; by `functional_call`.
        weights: those to differentiate by.
        batch: tensors, nested as one likes, whose first size is the examples'.
        randomness: `error`, `same` or `different`: what dropout does.
    """

    def loss(weights: dict[str, Tensor], example: Any) -> Tensor:
        return losses(weights, tree_map(lambda value: value.unsqueeze(0), example)).sum()

    return vmap(grad(loss), in_dims=(None, 0), randomness=randomness)(dict(weights), batch)
