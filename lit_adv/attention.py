"""By which kernels attention runs: plain products can be differentiated twice, fused ones not."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.backends import cuda  # whose switches hold for every device
from torch.nn.attention import SDPBackend, sdpa_kernel

SWITCHES = (
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    (cuda.math_sdp_enabled, cuda.enable_math_sdp),
)


def twice_differentiable() -> AbstractContextManager[Any]:
    """Attention by plain products inside the block: the fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def as_now() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For `checkpoint(context_fn=...)`: what is recomputed runs by the kernels it ran by at first.

    PyTorch sees to dropout and autocast itself, not to these: a backward pass behind the block of
    `twice_differentiable` would recompute other tensors than it needs.
    """
    return nullcontext(), Kernels()


class Kernels:
    """Inside the block, the choice of kernels of the moment when this object was made.

    A block may be entered again: a graph that is differentiated twice is recomputed twice.
    """

    def __init__(self) -> None:
        self._chosen = _state()
        self._before: list[list[bool]] = []

    def __enter__(self) -> None:
        self._before.append(_state())
        _switch(self._chosen)

    def __exit__(self, *error: object) -> None:
        _switch(self._before.pop())


def _state() -> list[bool]:
    return [enabled() for enabled, _ in SWITCHES]


def _switch(state: list[bool]) -> None:
    for (_, enable), on in zip(SWITCHES, state, strict=True):
        enable(on)
