"""A tokenised split in memory, and its batches padded to their longest example."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lit_adv.data.batched import RowSet
from lit_adv.data.splits import Split

COLUMNS = ("input_ids", "token_type_ids", "special_tokens_mask")


class Tokenised(RowSet):
    """Token columns of all examples end to end, with the place where each example begins.

    Args:
        columns: token columns, each of all tokens of all examples.
        starts: place of each example's first token, and the number of tokens at the end.
        labels: of every example.
    """

    def __init__(
        self, columns: dict[str, np.ndarray], starts: np.ndarray, labels: np.ndarray
    ) -> None:
        self.columns, self.starts, self.labels = columns, starts, labels

    @classmethod
    def of(cls, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> "Tokenised":
        """Tokenise a split, cut to `max_length` tokens per example."""
        encoded = tokenizer(
            split.texts,
            split.pairs,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_special_tokens_mask=True,
        )
        lengths = [len(row) for row in encoded["input_ids"]]
        columns = {
            name: np.concatenate([np.asarray(row, dtype=np.int32) for row in encoded[name]])
            for name in COLUMNS
            if name in encoded
        }
        regression = any(isinstance(label, float) for label in split.labels)
        labels = np.asarray(split.labels, dtype=np.float32 if regression else np.int64)
        return cls(columns, np.concatenate([[0], np.cumsum(lengths)]), labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """The examples of one batch, end to end: samplers here give batches of rows, not rows."""
        index = np.asarray(rows)
        lengths = self.starts[index + 1] - self.starts[index]
        # What an example is moved by, for each of its tokens: one look-up per column and batch.
        moved = self.starts[index] - (np.cumsum(lengths) - lengths)
        places = np.arange(lengths.sum()) + np.repeat(moved, lengths)
        tokens = {name: column[places] for name, column in self.columns.items()}
        return {**tokens, "lengths": lengths, "labels": self.labels[index], "index": index}


class Collate:
    """Examples to a batch: token columns padded on the tokenizer's side, with an attention mask.

    `index` is the row of every example in its split: what is known of an example goes by it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._left = tokenizer.padding_side == "left"
        self._padding = {"input_ids": tokenizer.pad_token_id or 0, "special_tokens_mask": 1}

    def __call__(self, examples: dict[str, np.ndarray]) -> dict[str, Tensor]:
        lengths = examples["lengths"][:, None]
        width = lengths.max()
        places = np.arange(width)
        real = places >= width - lengths if self._left else places < lengths
        batch = {name: torch.from_numpy(examples[name]) for name in ("labels", "index")}
        for name in COLUMNS:
            if name in examples:
                padded = np.full(real.shape, self._padding.get(name, 0))
                padded[real] = examples[name]
                batch[name] = torch.from_numpy(padded)
        return {**batch, "attention_mask": torch.from_numpy(real.astype(np.int64))}
