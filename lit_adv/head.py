"""Head: the last layer of a classifier, in closed form from one pass over the training set."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lit_adv import layers, processes, sharding
from lit_adv.functional.discriminant import Discriminant
from lit_adv.standstill import evaluating
from lit_adv.tasks.task import Batch, Task

SHRINKAGE = 0.01
"""Of the covariance: a few hundred features that go together have none that can be inverted."""


@dataclass(frozen=True)
class Head:
    """The linear layer whose output the logits are.

    Args:
        task: a classification.
        layer: the layer.
    """

    task: Task
    layer: nn.Linear

    @classmethod
    def of(cls, task: Task) -> "Head":
        """The last linear layer with as many outputs as there are classes.

        Raises:
            ValueError: there is none with a bias, or its weights are sharded.
        """
        key = "model.head_init=closed_form"
        classes = getattr(task, "num_labels", None)
        found = [m for m in task.network.modules() if isinstance(m, nn.Linear)]
        found = [m for m in found if m.out_features == classes]
        if not found or found[-1].bias is None:
            raise ValueError(
                f"{key}: {type(task.network).__name__} has no linear layer with a bias and one "
                "output per class; set model.head_init=random"
            )
        if sharding.dealt_out(task):
            raise ValueError(f"{key}: the weights are sharded; choose trainer=ddp")
        return cls(task, found[-1])

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """What the layer is called with, [batch, width].

        Raises:
            ValueError: the logits are not the layer's answer to it.
        """
        inputs: list[Tensor] = []
        handle = self.layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            with layers.captured(self.layer) as outputs:
                logits = self.task(batch)
        finally:
            handle.remove()
        if len(inputs) != 1 or outputs[0].shape != logits.shape or (outputs[0] != logits).any():
            raise ValueError(
                "model.head_init=closed_form: the logits are not the answer of the network's last "
                "linear layer, once per text; set model.head_init=random"
            )
        return inputs[0]

    def gathered(self, batches: Iterable[Batch]) -> Discriminant:
        """The sums over all processes' batches, in evaluation mode."""
        device = self.layer.weight.device
        seen = Discriminant(self.layer.out_features, self.layer.in_features, device)
        some = tqdm(batches, "features", leave=False, disable=True if processes.rank() else None)
        with evaluating(self.task):
            for batch in some:
                seen.update(self.features(batch), batch["labels"])
        for part in seen.parts:
            processes.add_up(part)
        return seen

    @torch.no_grad()
    def solve(self, batches: Iterable[Batch], shrinkage: float = SHRINKAGE) -> None:
        """Set the layer to what the features of the training set suggest."""
        weight, bias = self.gathered(batches).solve(shrinkage)
        self.layer.weight.copy_(weight)
        self.layer.bias.copy_(bias)
