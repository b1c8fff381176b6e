"""DropToken: random words are left out, the others keep their places (kexue.fm/archives/8770)."""

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor

COLUMNS = (
    *("input_ids", "token_type_ids", "attention_mask", "special_tokens_mask", "position_ids"),
)
"""What has a number for each token, whatever the task."""


def kept(
    free: Bool[Tensor, "batch tokens"],
    real: Bool[Tensor, "batch tokens"],
    share: float,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch left"]:
    """The places that stay, in their order, and -1 behind the last one of each text.

    Each free place is left out with the chance `share`, whatever the others do. A text of free
    places only keeps its first one if it would lose all.

    Args:
        free: places that may be left out.
        real: places that are no padding.
        share: chance, in [0, 1).
        generator: of the draws.
    """
    draws = torch.rand(free.shape, generator=generator, device=free.device)
    stays = real & ~(free & (draws < share))
    first = real & (real.cumsum(1) == 1)
    stays = torch.where(stays.any(1, keepdim=True), stays, first)
    counts = stays.sum(1, keepdim=True)
    order = torch.argsort(~stays, dim=1, stable=True)[:, : int(counts.max())]
    return order.where(torch.arange(order.shape[1], device=free.device) < counts, -1)


def drop(
    batch: Mapping[str, Tensor],
    share: float,
    *,
    padding: int = 0,
    columns: Collection[str] = COLUMNS,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """A shorter batch of the same texts, with `position_ids` of the places before.

    Words between special tokens may be left out, special tokens not. On the host: the length of
    the new batch has to be known there.

    Args:
        batch: `input_ids`, `attention_mask`, `special_tokens_mask`, and whatever else.
        share: chance of each word to be left out; 0 = the batch as it is.
        columns: what has a number for each token, and is shortened.
        padding: id behind the end of the shorter texts.
        generator: of the draws.
    """
    if share == 0:
        return dict(batch)
    real, special = batch["attention_mask"].bool(), batch["special_tokens_mask"].bool()
    places = kept(real & ~special, real, share, generator)
    stays, index = places >= 0, places.clamp(min=0)
    positions = batch.get("position_ids")
    if positions is None:
        positions = torch.arange(real.shape[1], device=real.device).expand(real.shape)
    shorter: dict[str, Tensor] = {}
    for name, value in {**batch, "position_ids": positions}.items():
        if name in columns:
            filling = {"input_ids": padding, "special_tokens_mask": 1, "labels": -100}.get(name, 0)
            value = value.gather(1, index).where(stays, filling)
        shorter[name] = value
    return shorter
