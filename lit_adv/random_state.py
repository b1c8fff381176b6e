"""RandomState: the random streams at one moment, to draw the same dropout masks again."""

import torch
from torch import Tensor


def apart(seed: int, number: int) -> int:
    """A seed for stream number `number`: those of neighbouring seeds and numbers do not meet."""
    return (seed + 0x9E3779B97F4A7C15 * number) % 2**63  # a large odd factor


class RandomState:
    """The state of PyTorch's random stream at one moment, to draw the same dropout masks again.

    Args:
        device: where the network is.
        generators: other streams to be put back as well.
    """

    def __init__(self, device: torch.device, *generators: torch.Generator) -> None:
        self._host = torch.get_rng_state()
        self._device: tuple[torch.device, Tensor] | None = None
        if device.type == "cuda":
            self._device = (device, torch.cuda.get_rng_state(device))
        self._generators = [(generator, generator.get_state()) for generator in generators]

    def state_dict(self) -> dict[str, Tensor]:
        """PyTorch's stream of the host and, if it has one, of the device, for a checkpoint."""
        state = {"host": self._host}
        return state if self._device is None else {**state, "device": self._device[1]}

    @classmethod
    def of(cls, state: dict[str, Tensor], device: torch.device) -> "RandomState":
        """The state that a checkpoint holds; a stream of another kind of device stays as it is."""
        now = cls(device)
        now._host = state["host"].cpu()
        if now._device is not None and "device" in state:
            now._device = (device, state["device"].cpu())
        return now

    def rewind(self) -> None:
        """Put the streams back to that moment."""
        torch.set_rng_state(self._host)
        if self._device is not None:
            device, state = self._device
            torch.cuda.set_rng_state(state, device)
        for generator, state in self._generators:
            generator.set_state(state)
