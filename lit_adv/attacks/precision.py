"""In which precision networks answer the questions of an attack."""

from contextlib import AbstractContextManager, nullcontext

import torch

from lit_adv.ranges import one_of


def chosen(precision: str, device: torch.device) -> str:
    """`bf16` or `32`; `auto` is bfloat16 where the device has it.

    Raises:
        ValueError: none of `auto`, `bf16`, `32`.
    """
    one_of(("auto", "bf16", "32"), "attack.precision", precision)
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() else "32"
    return "32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision; a block casts the weights once, so one block for many batches."""
    if precision == "32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
