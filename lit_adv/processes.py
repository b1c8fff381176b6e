"""Processes that train together: what they tell each other."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if _together() else 0


def add_up(numbers: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if _together():
        dist.all_reduce(numbers)
    return numbers


def largest(number: Tensor) -> Tensor:
    """The largest of all processes, in place."""
    if _together():
        dist.all_reduce(number, dist.ReduceOp.MAX)
    return number


def of_first(tensor: Tensor) -> Tensor:
    """The first process's, in place."""
    if _together():
        dist.broadcast(tensor, 0)
    return tensor


def gather(value: T) -> list[T]:
    """What each process has, in the order of their ranks; plain values and tensors on the host."""
    if not _together():
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def concatenate(rows: Tensor) -> Tensor:
    """The rows of all processes, one after the other; only the first size may differ.

    The host waits for the sizes: they are not known beforehand.
    """
    if not _together():
        return rows
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(count())]
    dist.all_gather(sizes, size)
    lengths = [int(each) for each in sizes]
    # Backends want pieces of one size.
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows
    pieces = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(pieces, padded)
    return torch.cat([piece[:length] for piece, length in zip(pieces, lengths, strict=True)])


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
