"""Texts whose embeddings are learnt by contrast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lit_adv.data.splits import Split, Splits
from lit_adv.kinds.kind import Kind
from lit_adv.tasks.contrastive import Contrastive as Task

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table


@dataclass(kw_only=True, frozen=True)
class Contrastive(Kind):
    """Each `data.text` with itself, or with the text that is to lie near it.

    Args:
        positive: name of the column of texts that are to lie near; None = the text itself, of
            which dropout makes two views (the network needs some).
        negative: name of the column of texts that are not; None = only the batch's others are not.
        similarity: name of a column of numbers in the validation and test rows: how near their
            text and `compared` are, which is measured by rank correlation; None = measured is how
            many texts lie nearest to their own view.
        compared: name of the column of texts that this is said of.
        loss: `info_nce` or `flat_nce`.
        temperature: tau.
        pooling: `first` token or `mean` of the real ones.
    """

    positive: str | None = None
    negative: str | None = None
    similarity: str | None = None
    compared: str = "text_pair"
    loss: Literal["info_nce", "flat_nce"] = "info_nce"
    temperature: float = 0.05
    pooling: Literal["first", "mean"] = "first"

    name = "contrastive"
    architecture = ""
    adapters = "FEATURE_EXTRACTION"
    new_head = False

    @property
    def may_be_cut(self) -> bool:
        return self.similarity is None

    def needs(self, columns: Columns) -> dict[str, str]:
        named = {"task.positive": self.positive, "task.negative": self.negative}
        return {"data.text": columns.text, **{k: v for k, v in named.items() if v is not None}}

    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        texts = columns.texts(table, name)
        if self.similarity is not None and name != "train":
            for key in ("similarity", "compared"):
                if getattr(self, key) not in table:
                    raise ValueError(
                        f"task.{key}={getattr(self, key)}: no such column in the {name} split; it "
                        f"has {', '.join(table)}"
                    )
            others = columns.beside(table, self.compared)
            key = f"task.similarity={self.similarity}"
            values = [
                columns.label_of(value, None, row, name, key)
                for row, value in enumerate(table[self.similarity], start=1)
            ]
            return Split(texts=[list(p) for p in zip(texts, others, strict=True)], labels=values)
        views = [texts, texts if self.positive is None else columns.beside(table, self.positive)]
        if self.negative is not None:
            views.append(columns.beside(table, self.negative))
        rows = [list(row) for row in zip(*views, strict=True)]
        return Split(texts=rows, labels=[0] * len(rows))

    def corpus(self, split: Split) -> Iterator[str]:
        for row in split.texts:
            yield from dict.fromkeys(row)

    def task(self, network: nn.Module, splits: Splits, **place: Any) -> Task:
        return Task(
            network,
            loss=self.loss,
            temperature=self.temperature,
            pooling=self.pooling,
            similarity=self.similarity is not None,
            **place,
        )
