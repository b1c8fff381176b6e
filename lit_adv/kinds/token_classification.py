"""A label for every word of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv.data.lists import lists
from lit_adv.data.splits import Split, Splits
from lit_adv.data.tokenised import Tokenised
from lit_adv.kinds.kind import Kind
from lit_adv.kinds.labels import weights_of
from lit_adv.tasks.cross_entropy import IGNORED
from lit_adv.tasks.token_classification import TokenClassification as Task

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table


@dataclass(kw_only=True, frozen=True)
class TokenClassification(Kind):
    """Rows are lists of words and of their tags; a word's first piece has its tag.

    Args:
        words: name of the column of words.
        tags: name of the column of tags.
        class_weights: of the classes in the order of their names; `balanced` = each class counts
            the same in all; None = each word of an example does.
        label_smoothing: share of the target that all classes have alike.
    """

    words: str = "tokens"
    tags: str = "tags"
    class_weights: Literal["balanced"] | list[float] | None = None
    label_smoothing: float = 0.0

    name = "token_classification"
    architecture = "TokenClassification"
    adapters = "TOKEN_CLS"
    labels_tokens = True
    drops_tokens = True

    @property
    def _key(self) -> str:
        return f"task.tags={self.tags}"

    def needs(self, columns: Columns) -> dict[str, str]:
        return {"task.words": self.words, "task.tags": self.tags}

    def labelled_by(self, label: str) -> str:
        return self.tags

    def names(self, columns: Columns, train: Table) -> list[str]:
        return columns.names_in(
            [tag for row in lists(train[self.tags], self._key, "train") for tag in row], self._key
        )

    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        all_words = lists(table[self.words], f"task.words={self.words}", name)
        all_tags = lists(table[self.tags], self._key, name)
        texts, labels = [], []
        for row, (words, tags) in enumerate(zip(all_words, all_tags, strict=True), start=1):
            if len(words) != len(tags):
                raise ValueError(
                    f"task.words={self.words}: row {row} of the {name} split has not as many words "
                    "as tags"
                )
            texts.append([str(word) for word in words])
            labels.append([columns.label_of(tag, names, row, name, self._key) for tag in tags])
        return Split(texts=texts, labels=labels)

    def tokenised(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Tokenised:
        # As running text: split into words, byte-level tokenizers would take most for other ones.
        encoded = tokenizer(
            [" ".join(words) for words in split.texts],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
        )
        offsets: Any = encoded["offset_mapping"]
        labels = [
            first_pieces(words, tags, ends)
            for words, tags, ends in zip(split.texts, split.labels, offsets, strict=True)
        ]
        return Tokenised.joined({**encoded, "token_labels": labels}, None)

    def corpus(self, split: Split) -> Iterator[str]:
        for words in split.texts:
            yield " ".join(words)

    def task(self, network: nn.Module, splits: Splits, **place: Any) -> Task:
        assert splits.label_names is not None
        tags: Any = np.concatenate([np.asarray(row, dtype=int) for row in splits.train.labels])
        return Task(
            network,
            label_names=splits.label_names,
            class_weights=weights_of(self.class_weights, tags, len(splits.label_names)),
            label_smoothing=self.label_smoothing,
            **place,
        )


def first_pieces(
    words: Sequence[str], tags: Sequence[int], offsets: Sequence[tuple[int, int]]
) -> list[int]:
    """The label of every token: a word's, at its first piece; a blank by itself is none.

    Args:
        words: of the text, which is these with a blank between each two.
        tags: of the words.
        offsets: where each token begins and ends in the text; special ones are empty.
    """
    word_at: list[int | None] = []
    for number, word in enumerate(words):
        word_at += [*[number] * len(word), None]
    labels, before = [], None
    for start, end in offsets:
        word = word_at[end - 1] if end > start else None  # by its end: it may begin with the blank
        labels.append(IGNORED if word is None or word == before else tags[word])
        before = before if word is None else word
    return labels
