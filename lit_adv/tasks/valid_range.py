"""The range that inputs of real numbers have, such as pixels, and perturbations that respect it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_adv.functional.precision import at_least_float32


class ValidRange:
    """`low <= x + delta <= high`, for numbers, or for each channel of [batch, C, H, W].

    Args:
        low: smallest valid value, one number or one per channel.
        high: largest.
        said: the settings, as errors say them.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | Sequence[float], said: str
    ) -> None:
        self.said = said
        one, other = torch.tensor(low), torch.tensor(high)
        if one.ndim or other.ndim:
            one, other = one.view(-1, 1, 1), other.view(-1, 1, 1)
        self.low, self.high = one, other
        self._checked = False
        if not bool((one < other).all()):
            raise ValueError(f"{said}: the first needs to be the smaller")

    def check(self, x: Tensor) -> None:
        """Refuse a first batch outside, as far as its own type can tell.

        Raises:
            ValueError: it is.
        """
        if self._checked:
            return
        slack = torch.finfo(x.dtype).eps * torch.maximum(self.low.abs(), self.high.abs())
        values = x.detach().cpu()
        if not bool(((values >= self.low - slack) & (values <= self.high + slack)).all()):
            raise ValueError(
                f"{self.said}: a batch has numbers from {float(values.min()):g} to "
                f"{float(values.max()):g}; set the range of what the network is given, one number "
                "or one per channel"
            )
        self._checked = True

    @torch.no_grad()
    def limit(self, x: Tensor, delta: Tensor) -> Tensor:
        """The nearest perturbation, of whatever shape, that leaves x in the range.

        A number that lies outside already may be left there, and moved towards the range: no
        perturbation grows.
        """
        x = at_least_float32(x)
        if self.low.device != x.device:  # moved once
            self.low, self.high = self.low.to(x.device), self.high.to(x.device)
        down, up = (self.low - x).clamp(max=0), (self.high - x).clamp(min=0)
        return torch.clamp(delta, down.reshape(delta.shape), up.reshape(delta.shape))
