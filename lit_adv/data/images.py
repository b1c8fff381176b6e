"""Images in memory: their splits, and their batches."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_adv.data.batched import Batched
from lit_adv.data.rows import RowSet
from lit_adv.kinds.labels import Labels


@dataclass(kw_only=True)
class ImageSplit(RowSet):
    """Images, [rows, C, H, W] in float32, and the class of each."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """All are alike."""
        return np.ones(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        index = np.asarray(rows)
        return {"pixel_values": self.images[index], "labels": self.labels[index], "index": index}

    @property
    def content(self) -> tuple[object, ...]:
        """What tells it from other rows."""
        return (hashlib.sha256(self.images.tobytes()).hexdigest(), self.labels.tolist())

    def cut(self, size: int, seed: int) -> tuple["ImageSplit", "ImageSplit"]:
        """Two parts drawn at random: all but `size` rows, and `size` rows."""
        order = np.random.default_rng(seed).permutation(len(self))
        parts = (np.sort(order[size:]), np.sort(order[:size]))
        rest, some = (ImageSplit(images=self.images[p], labels=self.labels[p]) for p in parts)
        return rest, some


@dataclass(kw_only=True)
class ImageSplits:
    """The three splits, the names of the classes, and what is asked of them (None = nothing)."""

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    label_names: list[str]
    kind: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def pixels(self) -> int:
        """Numbers per image."""
        return int(np.prod(self.shape))

    def items(self) -> list[tuple[str, ImageSplit]]:
        """The splits by name."""
        return [("train", self.train), ("validation", self.validation), ("test", self.test)]


@dataclass(kw_only=True, eq=False)
class Images(Batched[ImageSplits]):
    """Base of all image data: subclasses load the splits."""

    @abstractmethod
    def load(self) -> ImageSplits:
        """Read or make the three splits."""

    @property
    def splits(self) -> ImageSplits:
        if not isinstance(self.kind, Labels):
            raise ValueError(
                f"task={self.kind.name}: for texts, and the data are images; task=auto"
            )
        return super().splits

    def adapt(self, model: Any, order_seed: int = 0) -> None:
        if model.tokenizer is not None:
            raise ValueError(
                "data: images, and the model is one for texts; choose model=mlp or convolutional"
            )
        self._collate, self._order_seed = _tensors, order_seed
        self._sets = dict(self.splits.items())


def _tensors(examples: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(column) for name, column in examples.items()}
