"""Batch: tensors by name."""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

Batch: TypeAlias = Mapping[str, Tensor]
"""Each has a row for every example."""
