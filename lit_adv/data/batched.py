"""Batched: from rows of any kind to batches, in an order that seed and epoch decide."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS
from torch import Tensor
from torch.utils.data import DataLoader

from lit_adv.data.batches import LengthGroupedBatches, SharedBatches
from lit_adv.data.rows import Rows, RowSet
from lit_adv.data.training_loader import TrainingLoader
from lit_adv.kinds.kind import Kind
from lit_adv.kinds.labels import Labels
from lit_adv.ranges import whole


class SplitsOf(Protocol):
    """Training, validation and test rows."""

    train: Any
    kind: Any

    def items(self) -> list[tuple[str, Any]]:
        """The splits by name."""
        ...


Loaded = TypeVar("Loaded", bound=SplitsOf)


@dataclass(kw_only=True, eq=False)
class Batched(L.LightningDataModule, Generic[Loaded]):
    """Base of all data: subclasses load the splits and say how rows become tensors.

    Args:
        batch_size: training examples per batch (per device).
        eval_batch_size: validation and test examples per batch.
        limit: training examples used, drawn at random by `seed`; None = all.
        num_workers: processes that load batches; 0 is fastest for what is in memory.
        seed: of the data themselves: subset, cut-off validation split, generated texts and noise.
            The run's seed sets the order of the batches.

    Raises:
        ValueError: a size below 1, or an empty split.
    """

    batch_size: int = 32
    eval_batch_size: int = 128
    limit: int | None = None
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("batch_size", "eval_batch_size", "limit"):
            value = getattr(self, name)
            if value is not None:
                whole(1, f"data.{name}", value)
        whole(0, "data.seed", self.seed)
        self.kind: Kind = Labels()
        """What the rows teach; to be said before they are loaded."""
        self._splits: Loaded | None = None
        self._sets: dict[str, RowSet] = {}
        self._collate: Callable[[dict[str, np.ndarray]], dict[str, Tensor]] | None = None
        self._order_seed = self.seed

    @abstractmethod
    def load(self) -> Loaded:
        """Read or make the three splits."""

    @abstractmethod
    def adapt(self, model: Any, order_seed: int = 0) -> None:
        """Make ready what this model is fed with; order batches by this seed.

        Raises:
            ValueError: the model is one for another kind of data.
        """

    @property
    def splits(self) -> Loaded:
        """The three splits, loaded once.

        Raises:
            ValueError: one of them is empty.
        """
        if self._splits is None:
            splits = self.load()
            for name, split in splits.items():
                if not len(split):
                    raise ValueError(
                        f"data: the {name} split is empty (the training split has "
                        f"{len(splits.train)} rows); give more rows"
                    )
            if self.limit is not None and self.limit < len(splits.train):
                splits.train = splits.train.cut(self.limit, self.seed)[1]
            splits.kind = self.kind
            self._splits = splits
        return self._splits

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        train = self._sets["train"]
        return self._for_training(train, self._shuffled(train))

    def some(self, rows: Sequence[int], *, shuffled: bool) -> DataLoader:
        """Batches of these rows of the training split."""
        data = Rows(self._sets["train"], np.asarray(rows))
        if not shuffled:
            return self._in_order(data)
        return DataLoader(data, **self._options(self._shuffled(data)))

    def val_dataloader(self) -> DataLoader:
        return self._in_order(self._sets["validation"])

    def test_dataloader(self) -> DataLoader:
        return self._in_order(self._sets["test"])

    def _in_order(self, data: RowSet) -> DataLoader:
        # All rows once and none twice, however many processes: metrics are exact.
        batches = self._batches(data, self.eval_batch_size, shuffle=False)
        return DataLoader(data, **self._options(batches))

    def _shuffled(self, data: RowSet, **options: int) -> LengthGroupedBatches:
        return self._batches(data, self.batch_size, **{"seed": self._order_seed, **options})

    def _batches(self, data: RowSet, size: int, **options: Any) -> LengthGroupedBatches:
        if self.trainer is None:
            return LengthGroupedBatches(data.lengths, size, **options)
        # Lightning's own answer: devices that hold parts of one model get the same rows.
        share = self.trainer.distributed_sampler_kwargs or {}
        return SharedBatches(data.lengths, size, **options, **share)

    def _for_training(self, data: RowSet, batches: LengthGroupedBatches) -> DataLoader:
        options = self._options(batches)
        if self.trainer is None:
            return DataLoader(data, **options)
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit:
            raise ValueError(
                f"trainer.overfit_batches={overfit}: takes away the order of "
                "batches of like length; data.limit=N trains on the same N examples in every epoch"
            )
        return TrainingLoader(data, place=self._place, **options)

    def _options(self, batches: LengthGroupedBatches) -> dict[str, Any]:
        return {
            "batch_size": None,
            # Not as batch sampler: only of a sampler does Lightning tell the epoch.
            "sampler": batches,
            "collate_fn": self._collate,
            "num_workers": self.num_workers,
            # Of its own: every iterator draws a seed, which would shift the masks of dropout.
            "generator": torch.Generator().manual_seed(self._order_seed),
        }

    def _place(self) -> tuple[int, int] | None:
        """Where Lightning's training stands: epoch, and batches of it that are done."""
        if self.trainer is None or not self.trainer.training:
            return None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return self.trainer.current_epoch, batches.completed
