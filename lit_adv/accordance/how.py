"""How gradient accordance is measured: the settings of GradientAccordance, checked."""

from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
from torch import Tensor

from lit_adv.accordance.kept import Kept
from lit_adv.accordance.probe import Labels, Losses
from lit_adv.functional.accordance import Normalize
from lit_adv.ranges import one_of, whole


def task_losses(module: L.LightningModule, batch: Any) -> Tensor:
    """What a FineTuner descends, of each example."""
    task: Any = module.task
    return task.losses(task(batch), batch)


def batch_labels(batch: Any) -> Tensor | None:
    """The labels of a batch that names them."""
    return batch.get("labels") if hasattr(batch, "get") else None


@dataclass
class How:
    """Of what the accordance is, and when; what each setting means stands in GradientAccordance.

    Raises:
        ValueError: one lies outside its range, or two do not go together.
    """

    theta: Literal["fixed", "moving"]
    against: Literal["train", "validation", "both"]
    batches: int | float | None
    held_out: int
    every_n_steps: int | None
    parameters: str
    normalize: Normalize
    mode: Literal["eval", "train"]
    sketch: int | None
    losses: Losses | None
    labels: Labels

    def __post_init__(self) -> None:
        one_of(("fixed", "moving"), "accordance.theta", self.theta)
        one_of(("train", "validation", "both"), "accordance.against", self.against)
        one_of(("cosine", "none"), "accordance.normalize", self.normalize)
        one_of(("eval", "train"), "accordance.mode", self.mode)
        whole(1, "accordance.held_out", self.held_out)
        if self.every_n_steps is not None:
            whole(1, "accordance.every_n_steps", self.every_n_steps)
        if self.moving and self.against != "train":
            raise ValueError(
                f"accordance.against={self.against}: held-out data are not trained on; set "
                "theta=fixed"
            )
        Kept(self.wanted, 1)  # refuses what is no number of batches

    @property
    def moving(self) -> bool:
        """Whether the training passes themselves are measured."""
        return self.theta == "moving"

    @property
    def wanted(self) -> int | float:
        """Batches to look at per window, or a share of them."""
        if self.batches is not None:
            return self.batches
        return 0.05 if self.moving else 0.1

    @property
    def merges(self) -> bool:
        """Whether windows make up a value of the epoch."""
        return self.every_n_steps is not None and self.against != "validation"

    def suits(self, module: L.LightningModule) -> None:
        """Refuse a module whose losses nobody says."""
        if self.losses is None and not hasattr(getattr(module, "task", None), "losses"):
            raise ValueError(
                f"GradientAccordance: {type(module).__name__} does not say the losses of its "
                "examples; give losses=lambda module, batch: ... of shape [examples]"
            )
