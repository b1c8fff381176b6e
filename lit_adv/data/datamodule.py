"""TextData: from texts and labels to padded batches."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lit_adv.data.batches import LengthGroupedBatches
from lit_adv.data.files import read
from lit_adv.data.splits import Split, Splits
from lit_adv.data.tokenised import COLUMNS, Collate, Rows, Tokenised
from lit_adv.ranges import whole

FORMAT = 1
"""Of the cached files; another number where they change."""


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
        self._collate, self._order_seed = Collate(tokenizer), order_seed
        key = _key(tokenizer)  # before its first use, which writes truncation into its state
        for name, split in self.splits.items():
            self._tokenised[name] = self._cached(split, tokenizer, key)
        if self.unlabelled is not None:
            split = self._read_unlabelled(Path(self.unlabelled))
            self._tokenised["unlabelled"] = self._cached(split, tokenizer, key)

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        labelled = self._shuffled(self._tokenised["train"])
        if self.unlabelled is None:
            return labelled
        # A longer set of texts without labels is not gone through in one epoch, a shorter repeats.
        # Shuffled by another seed: of two sets of one size the same rows would always meet.
        others = self._shuffled(self._tokenised["unlabelled"], self._order_seed + 2**32)
        both = {"labelled": labelled, "unlabelled": others}
        longer = len(both["unlabelled"]) >= len(labelled)
        return CombinedLoader(both, "min_size" if longer else "max_size_cycle")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A batch of both kinds becomes a labelled one with the other inside."""
        if "labelled" not in batch:
            return batch
        unlabelled = {k: v for k, v in batch["unlabelled"].items() if k != "labels"}
        return {**batch["labelled"], "unlabelled": unlabelled}

    def some(self, rows: Sequence[int], *, shuffled: bool) -> DataLoader:
        """Batches of these rows of the training split."""
        data = Rows(self._tokenised["train"], np.asarray(rows))
        return self._shuffled(data) if shuffled else self._in_order(data)

    def val_dataloader(self) -> DataLoader:
        return self._in_order(self._tokenised["validation"])

    def test_dataloader(self) -> DataLoader:
        return self._in_order(self._tokenised["test"])

    def _shuffled(self, data: Tokenised | Rows, seed: int | None = None) -> DataLoader:
        seed = self._order_seed if seed is None else seed
        batches = LengthGroupedBatches(data.lengths, self.batch_size, seed=seed)
        return self._loader(data, batches)

    def _in_order(self, data: Tokenised | Rows) -> DataLoader:
        rows = np.argsort(data.lengths, kind="stable")
        cuts = range(0, len(rows), self.eval_batch_size)
        return self._loader(data, [rows[cut : cut + self.eval_batch_size].tolist() for cut in cuts])

    def _loader(
        self, data: Tokenised | Rows, batches: LengthGroupedBatches | list[list[int]]
    ) -> DataLoader:
        # As sampler, not as batch sampler: only of a sampler does Lightning tell the epoch.
        return DataLoader(
            data,
            batch_size=None,
            sampler=batches,
            collate_fn=self._collate,
            num_workers=self.num_workers,
        )

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

    def _cached(self, split: Split, tokenizer: PreTrainedTokenizerBase, key: str) -> Tokenised:
        folder = self.cache or os.environ.get("LIT_ADV_CACHE") or Path.home() / ".cache" / "lit_adv"
        path = Path(folder) / f"{self._fingerprint(split, key)}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as saved:
                columns = {name: saved[name] for name in COLUMNS if name in saved}
                return Tokenised(columns, saved["starts"], saved["labels"])

        data = Tokenised.of(split, tokenizer, self.max_length)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            arrays: dict[str, Any] = {"starts": data.starts, "labels": data.labels, **data.columns}
            np.savez(file, **arrays)
        part.replace(path)
        return data

    def _fingerprint(self, split: Split, key: str) -> str:
        digest = hashlib.sha256(f"{FORMAT} {self.max_length} {key}".encode())
        for column in (split.texts, split.pairs or [], split.labels):
            digest.update(f"{len(column)} ".encode())
            for value in column:
                digest.update(f"{value}\0".encode())
        return digest.hexdigest()[:32]


def _key(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return repr(tokenizer) if backend is None else f"{tokenizer.padding_side} {backend.to_str()}"
