"""A tokenised split in memory, and its batches padded to their longest example."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lit_adv.data.rows import RowSet
from lit_adv.data.splits import Split
from lit_adv.tasks.cross_entropy import IGNORED

COLUMNS = ("input_ids", "token_type_ids", "special_tokens_mask", "token_labels")
NAMES = {"token_labels": "labels"}
"""In a batch, where it is another."""


class Tokenised(RowSet):
    """Token columns of all texts end to end, with the place where each begins.

    Args:
        columns: token columns, each of all tokens of all texts; `token_labels` may be one.
        starts: place of each text's first token, and the number of tokens at the end.
        labels: of every row; None = their tokens have some, or there are none.
        texts: of every row.
    """

    def __init__(
        self,
        columns: dict[str, np.ndarray],
        starts: np.ndarray,
        labels: np.ndarray | None,
        texts: int = 1,
    ) -> None:
        self.columns, self.starts, self.labels, self.texts = columns, starts, labels, texts

    @classmethod
    def of(cls, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> "Tokenised":
        """Tokenise texts or pairs, or the lists of them that rows have, cut to `max_length`."""
        texts, pairs, count = split.texts, split.pairs, 1
        if isinstance(texts[0], list):
            count = len(texts[0])
            texts, pairs = _flat(texts), None if pairs is None else _flat(pairs)
        encoded = tokenizer(
            texts,
            pairs,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_special_tokens_mask=True,
        )
        # A text that has no tokens, of decoders, would be none: it is one padding.
        alone = {"input_ids": tokenizer.pad_token_id or 0, "special_tokens_mask": 1}
        for row in (row for row, tokens in enumerate(encoded["input_ids"]) if not tokens):
            for name, column in encoded.items():
                column[row].append(alone.get(name, 0))
        regression = any(isinstance(label, float) for label in split.labels)
        labels = np.asarray(split.labels, dtype=np.float32 if regression else np.int64)
        return cls.joined(encoded, labels, count)

    @classmethod
    def joined(
        cls, encoded: Mapping[str, Any], labels: np.ndarray | None, texts: int = 1
    ) -> "Tokenised":
        """From the token columns of each text."""
        lengths = [len(row) for row in encoded["input_ids"]]
        columns = {
            name: np.concatenate([np.asarray(row, dtype=np.int32) for row in encoded[name]])
            for name in COLUMNS
            if name in encoded
        }
        return cls(columns, np.concatenate([[0], np.cumsum(lengths)]), labels, texts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row's longest text."""
        return np.diff(self.starts).reshape(-1, self.texts).max(1)

    def __len__(self) -> int:
        return (len(self.starts) - 1) // self.texts

    def __getitem__(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """The rows of one batch, their texts end to end."""
        index = np.asarray(rows)
        texts = (index[:, None] * self.texts + np.arange(self.texts)).ravel()
        lengths = self.starts[texts + 1] - self.starts[texts]
        # What a text is moved by, for each of its tokens: one look-up per column and batch.
        moved = self.starts[texts] - (np.cumsum(lengths) - lengths)
        places = np.arange(lengths.sum()) + np.repeat(moved, lengths)
        found = {name: column[places] for name, column in self.columns.items()}
        found |= {"lengths": lengths, "index": index}
        return found if self.labels is None else {**found, "labels": self.labels[index]}


def _flat(rows: Sequence[Sequence[str]]) -> list[str]:
    return [text for row in rows for text in row]


class Collate:
    """Rows to a batch: token columns padded on one side, with an attention mask.

    Of shape [batch, tokens]; [batch, texts, tokens] where a row has several texts. `index` is each
    row's number in its split: what is known of an example goes by it.

    Args:
        tokenizer: of the texts.
        side: `left` or `right`; None = the tokenizer's. See `padding.side`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, side: str | None = None) -> None:
        self._left = (side or tokenizer.padding_side) == "left"
        padding = tokenizer.pad_token_id or 0
        self._padding = {"input_ids": padding, "special_tokens_mask": 1, "token_labels": IGNORED}

    def __call__(self, examples: dict[str, np.ndarray]) -> dict[str, Tensor]:
        lengths = examples["lengths"][:, None]
        width = lengths.max()
        places = np.arange(width)
        real = places >= width - lengths if self._left else places < lengths
        count, texts = len(examples["index"]), len(lengths)
        shape = (count, width) if count == texts else (count, texts // count, width)
        batch = {n: torch.from_numpy(examples[n]) for n in ("labels", "index") if n in examples}
        for name in COLUMNS:
            if name in examples:
                padded = np.full(real.shape, self._padding.get(name, 0))
                padded[real] = examples[name]
                batch[NAMES.get(name, name)] = torch.from_numpy(padded.reshape(shape))
        mask = torch.from_numpy(real.astype(np.int64).reshape(shape))
        return {**batch, "attention_mask": mask}
