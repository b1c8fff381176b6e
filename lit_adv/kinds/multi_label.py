"""Any number of labels for a text or a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from lit_adv.data.lists import lists
from lit_adv.data.splits import Split, Splits
from lit_adv.kinds.kind import Kind
from lit_adv.tasks.multi_label import MultiLabel as Task

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table


@dataclass(kw_only=True, frozen=True)
class MultiLabel(Kind):
    """The label of a row is a list, of names or of indices, which may be empty.

    Args:
        positive_weights: of each label, factor of its loss where it is given; None = 1.
        label_smoothing: targets are half of this and one minus it.
    """

    positive_weights: list[float] | None = None
    label_smoothing: float = 0.0

    name = "multi_label"
    architecture = "SequenceClassification"
    adapters = "SEQ_CLS"
    drops_tokens = True

    def needs(self, columns: Columns) -> dict[str, str]:
        return columns.of_labelled_texts

    def names(self, columns: Columns, train: Table) -> list[str]:
        rows = lists(train[columns.label], columns.key, "train")
        return columns.names_in([value for row in rows for value in row])

    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        assert names is not None
        rows = lists(table[columns.label], columns.key, name)
        labels = []
        for row, values in enumerate(rows, start=1):
            given = {columns.label_of(value, names, row, name) for value in values}
            if len(given) < len(values):
                raise ValueError(
                    f"{columns.key}: row {row} of the {name} split names a label twice: "
                    f"{values!r}; rows list their labels, by name or index, not zeros and ones"
                )
            labels.append([int(index in given) for index in range(len(names))])
        return Split(texts=columns.texts(table, name), pairs=columns.pairs(table), labels=labels)

    def sizes(self, splits: Splits) -> dict[str, Any]:
        return {**super().sizes(splits), "problem_type": "multi_label_classification"}

    def task(self, network: nn.Module, splits: Splits, **place: Any) -> Task:
        assert splits.label_names is not None
        return Task(
            network,
            num_labels=len(splits.label_names),
            positive_weights=self.positive_weights,
            label_smoothing=self.label_smoothing,
            **place,
        )
