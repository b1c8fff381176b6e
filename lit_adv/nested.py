"""Batches of tensors in mappings and lists, however they are nested."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


def some(batch: Any, rows: list[int], count: int) -> Any:
    """These rows of every tensor in a batch of so many examples, however it is nested."""
    if isinstance(batch, Tensor):
        return batch[rows] if batch.ndim and len(batch) == count else batch
    if isinstance(batch, Mapping):
        return {name: some(value, rows, count) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [some(value, rows, count) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def size(batch: Any) -> int:
    """Examples in a batch: the first size of its first tensor.

    Raises:
        ValueError: there is no tensor in it.
    """
    if isinstance(batch, Tensor) and batch.ndim:
        return len(batch)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(parts, str | Tensor) or not hasattr(parts, "__iter__"):
        raise ValueError(f"a batch of {type(batch).__name__}: no tensor that counts its examples")
    for part in parts:
        try:
            return size(part)
        except ValueError:
            continue
    raise ValueError(f"a batch of {type(batch).__name__}: no tensor that counts its examples")


def again(batch: Any) -> Any:
    """The same tensors in containers of their own: whoever gets these may take things out."""
    return apply_to_collection(batch, Tensor, lambda tensor: tensor)


def on_host(value: Any) -> Any:
    """The same in memory of the host and in plain containers, for a checkpoint."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {name: on_host(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [on_host(part) for part in value]
    return value


def on_device(value: Any, device: torch.device) -> Any:
    """The way back."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: on_device(part, device) for name, part in value.items()}
    return [on_device(part, device) for part in value] if isinstance(value, list) else value
