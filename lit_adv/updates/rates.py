"""Learning rates and weight decay, other than usual for one step."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Optimizer


@contextmanager
def scaled_rates(optimizer: Optimizer, rate: float, decay: float) -> Iterator[None]:
    """Inside the block learning rates are `rate` times, weight decays `decay` times their own."""
    saved = [(group["lr"], group.get("weight_decay")) for group in optimizer.param_groups]
    for group, (lr, weight_decay) in zip(optimizer.param_groups, saved, strict=True):
        group["lr"] = rate * lr
        if weight_decay is not None:
            group["weight_decay"] = decay * weight_decay
    try:
        yield
    finally:
        for group, (lr, weight_decay) in zip(optimizer.param_groups, saved, strict=True):
            group["lr"] = lr
            if weight_decay is not None:
                group["weight_decay"] = weight_decay
