"""HandOver: a loss to go backward from, whose gradients are there already."""

from typing import Any

import torch
from torch import Tensor


class HandOver(torch.autograd.Function):
    """A loss whose gradients are in `.grad` already: going backward from it adds zeros.

    Which makes DistributedDataParallel reduce what is there, once.
    """

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (grad, *(w.new_zeros(()).expand_as(w) for w in ctx.saved_tensors))
