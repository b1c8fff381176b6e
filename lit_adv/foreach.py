"""Many tensors in one call: the kernels behind PyTorch's own optimizers, which it keeps private."""

from torch import _foreach_copy_ as copy_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_lerp_ as lerp_  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_mul_ as mul_  # pyright: ignore[reportPrivateImportUsage]

__all__ = ["copy_", "lerp_", "mul_"]
