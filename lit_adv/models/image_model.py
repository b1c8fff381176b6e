"""ImageModel: a network for images, and the range of their pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from lit_adv.data.images import ImageSplits
from lit_adv.kinds.labels import kind_of
from lit_adv.tasks.classification import HeadInit
from lit_adv.tasks.place import Pixels
from lit_adv.tasks.task import Task


@dataclass(kw_only=True)
class ImageModel:
    """A network for image classification, which is perturbed in the pixels.

    Args:
        network: from `pixel_values`, [batch, C, H, W], to an answer with `logits`.
        low: smallest valid value of a pixel, one number or one per channel.
        high: largest.
        head_init: of the last layer; see Classification.
    """

    network: nn.Module
    low: float | list[float] = 0.0
    high: float | list[float] = 1.0
    head_init: HeadInit = "random"

    tokenizer = None
    drop_token = 0.0

    def task(self, splits: ImageSplits) -> Task:
        """Classification of images whose perturbations stay in the range."""
        place: dict[str, Any] = {"at": Pixels(self.low, self.high), "head_init": self.head_init}
        kind: Any = kind_of(splits)  # one of labels, or the data would have said so
        return kind.task(self.network, splits, **place)

    def write(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the network: as transformers do, or its weights in safetensors."""
        save = getattr(self.network, "save_pretrained", None)
        if save is not None:
            save(folder, state_dict=weights)
            return
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: w.contiguous() for k, w in weights.items()}, folder / "model.safetensors")


def of_images(splits: Any, model: str) -> ImageSplits:
    """The splits, which are images.

    Raises:
        ValueError: they are texts.
    """
    if not isinstance(splits, ImageSplits):
        raise ValueError(f"model={model}: for images, and the data are texts; choose model=tiny")
    return splits
