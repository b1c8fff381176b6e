"""TextData: from texts and labels to padded batches."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lit_adv.data.batches import LengthGroupedBatches, SharedBatches
from lit_adv.data.cache import Cache
from lit_adv.data.drop_token import DropToken
from lit_adv.data.files import read
from lit_adv.data.splits import Split, Splits
from lit_adv.data.tokenised import Collate, Rows, Tokenised
from lit_adv.data.training_loader import TrainingLoader
from lit_adv.ranges import whole


@dataclass(kw_only=True, eq=False)
class TextData(L.LightningDataModule):
    """Base of all text data: subclasses load the splits; this tokenises, caches and batches them.

    Args:
        batch_size: training examples per batch (per device).
        eval_batch_size: validation and test examples per batch.
        max_length: longest example, in tokens; the rest is cut off.
        limit: training examples used, drawn at random by `seed`; None = all.
        num_workers: processes that load batches; 0 is fastest for tokenised text.
        unlabelled: file of texts without labels, for methods that use some (vat); its columns are
            named as the training set's; None = no such texts.
        seed: of the data themselves: subset, cut-off validation split, generated texts and noise.
            The run's seed sets the order of the batches.
        cache: folder for tokenised splits; None = `$LIT_ADV_CACHE` or `~/.cache/lit_adv`.

    Raises:
        ValueError: a size below 1, or an empty split.
    """

    batch_size: int = 32
    eval_batch_size: int = 128
    max_length: int = 128
    limit: int | None = None
    num_workers: int = 0
    unlabelled: str | None = None
    seed: int = 0
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("batch_size", "eval_batch_size", "max_length", "limit"):
            value = getattr(self, name)
            if value is not None:
                whole(1, f"data.{name}", value)
        self._splits: Splits | None = None
        self._tokenised: dict[str, Tokenised] = {}
        self.tokenizer: PreTrainedTokenizerBase | None = None
        """Of the texts, once they are tokenised."""
        self.drop_token: DropToken | None = None
        """What leaves words out of training batches."""
        self._collate: Collate | None = None
        self._order_seed = self.seed

    @abstractmethod
    def load(self) -> Splits:
        """Read or make the three splits."""

    @property
    def splits(self) -> Splits:
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
            self._splits = splits
        return self._splits

    def tokenise(self, tokenizer: PreTrainedTokenizerBase, order_seed: int = 0) -> None:
        """Tokenise all splits, or take them from the cache; order batches by this seed."""
        self.tokenizer = tokenizer
        self._collate, self._order_seed = Collate(tokenizer), order_seed
        splits = dict(self.splits.items())
        if self.unlabelled is not None:
            splits["unlabelled"] = self._read_unlabelled(Path(self.unlabelled))
        cache = Cache(tokenizer, self.max_length, self.cache)
        self._tokenised = {name: cache.tokenised(split) for name, split in splits.items()}

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        train = self._tokenised["train"]
        batches = self._shuffled(train)
        labelled = self._for_training(train, batches)
        if self.unlabelled is None:
            return labelled
        # A longer set of texts without labels is not gone through in one epoch, a shorter repeats.
        # Shuffled by another seed: of two sets of one size the same rows would always meet.
        others, seed = self._tokenised["unlabelled"], self._order_seed + 2**32
        beside = self._for_training(others, self._shuffled(others, seed=seed, count=len(batches)))
        return CombinedLoader({"labelled": labelled, "unlabelled": beside}, "min_size")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A batch of both kinds becomes a labelled one with the other inside; words may go."""
        if "labelled" not in batch:
            return self._shorter(batch)
        unlabelled = {k: v for k, v in batch["unlabelled"].items() if k != "labels"}
        return {**self._shorter(batch["labelled"]), "unlabelled": unlabelled}

    def _shorter(self, batch: Any) -> Any:
        trainer = self.trainer
        if self.drop_token is None or trainer is None or not trainer.training:
            return batch
        number = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return self.drop_token(batch, trainer.current_epoch, number, trainer.global_rank)

    def some(self, rows: Sequence[int], *, shuffled: bool) -> DataLoader:
        """Batches of these rows of the training split."""
        data = Rows(self._tokenised["train"], np.asarray(rows))
        if not shuffled:
            return self._in_order(data)
        return DataLoader(data, **self._options(self._shuffled(data)))

    def val_dataloader(self) -> DataLoader:
        return self._in_order(self._tokenised["validation"])

    def test_dataloader(self) -> DataLoader:
        return self._in_order(self._tokenised["test"])

    def _in_order(self, data: Tokenised | Rows) -> DataLoader:
        # All rows once and none twice, however many processes: metrics are exact.
        batches = self._batches(data, self.eval_batch_size, shuffle=False)
        return DataLoader(data, **self._options(batches))

    def _shuffled(self, data: Tokenised | Rows, **options: int) -> LengthGroupedBatches:
        return self._batches(data, self.batch_size, **{"seed": self._order_seed, **options})

    def _batches(self, data: Tokenised | Rows, size: int, **options: Any) -> LengthGroupedBatches:
        if self.trainer is None:
            return LengthGroupedBatches(data.lengths, size, **options)
        # Lightning's own answer: devices that hold parts of one model get the same rows.
        share = self.trainer.distributed_sampler_kwargs or {}
        return SharedBatches(data.lengths, size, **options, **share)

    def _for_training(self, data: Tokenised, batches: LengthGroupedBatches) -> DataLoader:
        options = self._options(batches)
        if self.trainer is None:
            return DataLoader(data, **options)
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

    def _read_unlabelled(self, file: Path) -> Split:
        key = "data.unlabelled"
        if not file.is_file():
            raise ValueError(f"{key}={file}: no such file")
        table = read(file, key)
        columns = [self._column("text")]
        if self.splits.train.pairs is not None:
            columns.append(self._column("text_pair"))
        for column in columns:
            if column not in table:
                raise ValueError(f"{key}={file}: no column {column}; it has {', '.join(table)}")
        texts, *pairs = ([str(text) for text in table[column]] for column in columns)
        if not texts:
            raise ValueError(f"{key}={file}: no rows")
        return Split(texts=texts, pairs=pairs[0] if pairs else None, labels=[0] * len(texts))

    def _column(self, name: str) -> str:
        named = getattr(self, name, None)
        return name if named in (None, "auto") else named
