"""FirstNonFinite: remembers on the device when the loss first was not finite."""

import torch
from torch import Tensor


class FirstNonFinite:
    """Asking for a loss's value would make the host wait for the device in every step.

    So the number of the first step whose loss was not finite is kept beside the losses, and asked
    for only where the host waits anyway: at logging, validation and checkpoints.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._step = torch.tensor(-1, device=device)

    def watch(self, loss: Tensor, step: int) -> None:
        """Note this loss of optimizer step number `step` (from 0)."""
        first = (self._step < 0) & ~loss.detach().isfinite()
        self._step = torch.where(first, step, self._step)

    def check(self, batches: float, window: int) -> None:
        """Stop if there has been one.

        Args:
            batches: per epoch; inf = unknown.
            window: batches per optimizer step.

        Raises:
            FloatingPointError: the loss was not finite; the line names step, epoch and batch.
        """
        step = int(self._step)
        if step < 0:
            return
        per_epoch = -(-int(batches) // window) if batches != float("inf") else step + 1
        epoch, within = divmod(step, per_epoch)
        raise FloatingPointError(
            f"the training loss was not finite at optimizer step {step} (epoch {epoch}, batch "
            f"{within * window}); lower the learning rate or the radius"
        )
