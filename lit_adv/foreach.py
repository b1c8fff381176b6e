"""Many tensors in one call: the kernels behind PyTorch's own optimizers, which it keeps private."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import _foreach_add_ as add_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_copy_ as copy_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_lerp_ as lerp_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_mul_ as mul_  # pyright: ignore[reportPrivateImportUsage]

__all__ = ["add_", "copy_", "lerp_", "mul_", "norm"]


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean length of all of them taken together, in float32 at least."""
    lengths = [
        torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32))
        for t in tensors
    ]
    return torch.linalg.vector_norm(torch.stack(lengths))
