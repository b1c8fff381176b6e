"""Exponential moving average of the weights: Polyak and Juditsky, 1992."""

from lit_adv.callbacks.averaging import Averaging
from lit_adv.ranges import whole


class ExponentialMovingAverage(Averaging):
    """`mean <- decay * mean + (1 - decay) * weights` after every n-th optimizer step.

    The mean starts as the weights after the first step. Validation, checkpoints and the end of
    training see the mean.

    Args:
        decay: share of itself that the mean keeps, in [0, 1).
        every_n_steps: n.
        device: where the mean is kept; None = where the network is.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    def __init__(
        self, decay: float = 0.99, every_n_steps: int = 1, device: str | None = None
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks: decay={decay}: a share of the mean, in [0, 1)")
        self.every_n_steps = whole(1, "callbacks: every_n_steps", every_n_steps)
        super().__init__(lambda count: 1 - decay, device)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % self.every_n_steps == 0
