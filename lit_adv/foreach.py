"""Many tensors in one call: the kernels behind PyTorch's own optimizers, which it keeps private.

Of tensors that are dealt out to processes each works on its own part.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import _foreach_add_ as _add_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_copy_ as _copy_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_lerp_ as _lerp_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_mul_ as _mul_  # pyright: ignore[reportPrivateImportUsage]

from lit_adv.sharding import local, whole

Tensors = Sequence[Tensor]


def add_(these: Tensors, those: Tensors) -> None:
    """`these + those`, in place."""
    _add_(local(these), local(those))


def copy_(these: Tensors, those: Tensors) -> None:
    """`those`, in the place of `these`."""
    _copy_(local(these), local(those))


def lerp_(these: Tensors, those: Tensors, share: float) -> None:
    """`these + share * (those - these)`, in place."""
    _lerp_(local(these), local(those), share)


def mul_(these: Tensors, factor: float | Tensor) -> None:
    """`factor * these`, in place."""
    _mul_(local(these), factor)  # pyright: ignore[reportCallIssue, reportArgumentType]


def norm(tensors: Tensors) -> Tensor:
    """Euclidean length of all of them taken together, in float32 at least."""
    lengths = [
        whole(torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32)))
        for t in tensors
    ]
    return torch.linalg.vector_norm(torch.stack(lengths))
