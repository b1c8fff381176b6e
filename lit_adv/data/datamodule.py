"""TextData: from texts and labels to padded batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS
from transformers import PreTrainedTokenizerBase

from lit_adv import padding, positions, vocabulary
from lit_adv.data.batched import Batched
from lit_adv.data.cache import Cache
from lit_adv.data.columns import Columns
from lit_adv.data.drop_token import DropToken
from lit_adv.data.files import read
from lit_adv.data.splits import Split, Splits
from lit_adv.data.tokenised import Collate
from lit_adv.kinds.labels import Labels
from lit_adv.ranges import whole


@dataclass(kw_only=True, eq=False)
class TextData(Batched[Splits]):
    """Base of all text data: subclasses load the splits; this tokenises and caches them.

    Args:
        max_length: longest example, in tokens; the rest is cut off.
        unlabelled: file of texts without labels, for methods that use some (vat); its columns are
            named as the training set's; None = no such texts.
        cache: folder for tokenised splits; None = `$LIT_ADV_CACHE` or `~/.cache/lit_adv`.

    Raises:
        ValueError: a size below 1, or an empty split.
    """

    max_length: int = 128
    unlabelled: str | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, "data.max_length", self.max_length)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        """Of the texts, once they are tokenised."""
        self.drop_token: DropToken | None = None
        """What leaves words out of training batches."""

    def adapt(self, model: Any, order_seed: int = 0) -> None:
        if model.tokenizer is None:
            raise ValueError(
                "data: texts, and the model is one for images; choose model=tiny, or data=digits"
            )
        if model.drop_token and not self.kind.drops_tokens:
            raise ValueError(
                f"model.drop_token={model.drop_token}: with task={self.kind.name} texts are learnt "
                "whole; set it to 0"
            )
        self.tokenise(model.tokenizer, order_seed, padding.side(model.network))
        sets: list[Any] = [*self._sets.values()]
        longest = max(int(rows.lengths.max()) for rows in sets)
        positions.check(model.network, longest, self.max_length)
        largest = max(int(rows.columns["input_ids"].max()) for rows in sets)
        vocabulary.check(model.network, model.tokenizer, largest)
        self.drop_token = DropToken.of(
            model.drop_token,
            model.network,
            model.tokenizer,
            order_seed,
            labels_tokens=self.kind.labels_tokens,
        )

    def tokenise(
        self, tokenizer: PreTrainedTokenizerBase, order_seed: int = 0, side: str | None = None
    ) -> None:
        """Tokenise all splits, or take them from the cache.

        Args:
            tokenizer: of the texts.
            order_seed: of the order of training batches.
            side: of the padding; None = the tokenizer's.
        """
        self.tokenizer = tokenizer
        self._collate, self._order_seed = Collate(tokenizer, side), order_seed
        splits = dict(self.splits.items())
        if self.unlabelled is not None:
            splits["unlabelled"] = self._read_unlabelled(Path(self.unlabelled))
        cache = Cache(tokenizer, self.max_length, self.cache, self.kind)
        self._sets = {name: cache.tokenised(split) for name, split in splits.items()}

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        if self.unlabelled is None:
            return super().train_dataloader()
        train = self._sets["train"]
        batches = self._shuffled(train)
        labelled = self._for_training(train, batches)
        # A longer set of texts without labels is not gone through in one epoch, a shorter repeats.
        # Shuffled by another seed: of two sets of one size the same rows would always meet.
        others, seed = self._sets["unlabelled"], self._order_seed + 2**32
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

    def _read_unlabelled(self, file: Path) -> Split:
        key = "data.unlabelled"
        if not isinstance(self.kind, Labels):
            raise ValueError(f"{key}={file}: for task=auto, not for task={self.kind.name}")
        if not file.is_file():
            raise ValueError(f"{key}={file}: no such file")
        table = read(file, key)
        paired = self.splits.train.pairs is not None
        columns = Columns(
            text=self._column("text"), text_pair=self._column("text_pair") if paired else None
        )
        for column in (columns.text, columns.text_pair):
            if column is not None and column not in table:
                raise ValueError(f"{key}={file}: no column {column}; it has {', '.join(table)}")
        texts = columns.texts(table, "unlabelled")
        if not texts:
            raise ValueError(f"{key}={file}: no rows")
        return Split(texts=texts, pairs=columns.pairs(table), labels=[0] * len(texts))

    def _column(self, name: str) -> str:
        named = getattr(self, name, None)
        return name if named in (None, "auto") else named
