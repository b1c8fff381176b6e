"""Probing: gradients of some batches at the weights as they are, and nothing moves."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_adv import class_gradients, processes, standstill
from lit_adv.nested import size
from lit_adv.random_state import RandomState

Losses = Callable[[L.LightningModule, Any], Tensor]
Labels = Callable[[Any], Tensor | None]


class Probe:
    """Takes class gradients of a batch, by the module's own losses.

    Args:
        module: whose weights they are of.
        losses: from module and batch to the loss of each example.
        labels: from a batch to the class of each example.
        parameters: `all` that train, `head` (the last linear layer, by forward passes alone), or a
            regular expression that names of weights contain.
        mode: `eval`, or `train` with dropout.

    Raises:
        ValueError: there are no such weights, or dropout would bring batch norms along.
    """

    def __init__(
        self,
        module: L.LightningModule,
        losses: Losses,
        labels: Labels,
        parameters: str = "all",
        mode: Literal["eval", "train"] = "eval",
    ) -> None:
        self.module, self.losses, self.labels, self.mode = module, losses, labels, mode
        named = {n: w for n, w in module.named_parameters() if w.requires_grad}
        self.trained = list(named.values())
        # Not of what a method has beside its task.
        self.head = last_linear(getattr(module, "task", module)) if parameters == "head" else None
        if parameters not in ("all", "head"):
            named = {n: w for n, w in named.items() if re.search(parameters, n)}
        if not named:
            raise ValueError(f"parameters={parameters}: no weight that trains has such a name")
        norms = (m for m in module.modules() if isinstance(m, standstill.BatchNorm))
        if mode == "train" and any(norm.training for norm in norms):
            raise ValueError(
                "accordance.mode=train: through batch norms the losses of one class would depend "
                "on which others pass along; set mode=eval"
            )
        self.weights = list(named.values() if self.head is None else self.head.parameters())
        self.sharded = any(hasattr(weight, "full_tensor") for weight in self.weights)
        scaler = getattr(module.trainer.precision_plugin, "scaler", None)
        self.scale = 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def joint(self) -> bool:
        """Whether the gradients are those of all processes' batches, each with a part of them."""
        return self.sharded and self.head is None

    def total(self, number: Tensor) -> Tensor:
        """Add up what the processes have found, if each has a part of every gradient."""
        return processes.add_up(number) if self.joint else number

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Random streams and modes are afterwards what they were before."""
        module = self.module
        mode = standstill.evaluating if self.mode == "eval" else nullcontext
        # Of the own device alone: to ask the others would make a context on each.
        now = RandomState(module.device)
        try:
            with (
                isolate_rng(include_cuda=False),  # Python's and numpy's too, for data loaders
                mode(module),
                module.trainer.precision_plugin.forward_context(),
            ):
                yield
        finally:
            now.rewind()

    def classes(self, batch: Any) -> Iterator[tuple[int, list[Tensor]]]:
        """The gradient of each class in this batch, one at a time."""
        return self._gradients(batch, self.rows(batch))

    def whole(self, batch: Any) -> list[Tensor]:
        """The gradient of the batch."""
        ((_, gradient),) = self._gradients(batch, {0: list(range(size(batch)))})
        return gradient

    def rows(self, batch: Any) -> dict[int, list[int]]:
        """The rows of each class."""
        return class_gradients.examples_of(self.labels(batch), size(batch))

    def examples(self, count: int) -> float:
        """So many examples of this process as a number of those in its gradient."""
        return float(self.total(torch.tensor(float(count), device=self.weights[0].device)))

    def _gradients(
        self, batch: Any, rows: Mapping[int, list[int]]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        def losses(part: Any) -> Tensor:
            return self.losses(self.module, part)

        if self.head is not None:
            return class_gradients.of_head(losses, batch, rows, self.head, self.module)
        if self.sharded:
            return class_gradients.by_joint_passes(
                losses, batch, rows, self.weights, self.trained, self.scale
            )
        return class_gradients.by_passes(losses, batch, rows, self.weights, self.scale)


def last_linear(module: nn.Module) -> nn.Linear:
    """The last linear layer in the order of the module's parts.

    Raises:
        ValueError: there is none.
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ValueError("parameters=head: the module has no linear layer; name its weights")
    return layers[-1]
