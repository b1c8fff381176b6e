"""Descent and ascent with two learning rates, as in a commentary on flooding (kexue.fm/7643)."""

from torch.optim import Optimizer

from lit_adv.ranges import at_least
from lit_adv.updates.rates import scaled_rates
from lit_adv.updates.update import Update


class Alternate(Update):
    """`theta <- theta - lr * d` at even steps, `theta <- theta + ratio * lr * d` at odd ones.

    d is the optimizer's direction; its moments see every gradient with its own sign, so that
    momentum does not cancel out (what a negated gradient would do to it). For plain gradient
    descent a pair of steps with rates e1 and e2 descends
    `(e1 - e2) * (L + e1 e2 / (2 (e1 - e2)) * ||grad L||^2)` up to O(e^3), of the gradient's mean
    over batches. With ratio = 1 it is flooding whose loss stays at its level. L is the method's
    whole objective: other than by a flood, penalties are climbed too. Weights decay at descents
    only. Cost: nothing.

    Args:
        ratio: rate of the ascent relative to the descent's; the article uses 1e-6 against 1e-5;
            0 = every second batch is skipped.

    Raises:
        ValueError: ratio is negative.
    """

    needs_optimizer = True

    def __init__(self, ratio: float = 0.1) -> None:
        self.ratio = at_least(0, "update.ratio", ratio)

    def stepping(self, optimizer: Optimizer, step: int):
        climbs = step % 2 == 1
        return scaled_rates(optimizer, *((-self.ratio, 0.0) if climbs else (1.0, 1.0)))
