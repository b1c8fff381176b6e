"""A question, or the beginning of a text, with several answers, one of them right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from lit_adv.data.lists import lists
from lit_adv.data.splits import Split, Splits
from lit_adv.kinds.kind import Kind
from lit_adv.tasks.multiple_choice import MultipleChoice as Task

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table


@dataclass(kw_only=True, frozen=True)
class MultipleChoice(Kind):
    """`data.text` is the question, `data.label` the index of the right choice.

    Args:
        choices: name of the column that lists a row's choices; or the names of several, one for
            each choice. All rows have as many.
        label_smoothing: share of the target that all choices have alike.
    """

    choices: str | list[str] = "choices"
    label_smoothing: float = 0.0

    name = "multiple_choice"
    architecture = "MultipleChoice"
    adapters = "SEQ_CLS"

    def needs(self, columns: Columns) -> dict[str, str]:
        if isinstance(self.choices, str):
            several = {"task.choices": self.choices}
        else:
            several = {f"task.choices[{i}]": name for i, name in enumerate(self.choices)}
        return {"data.text": columns.text, **several, "data.label": columns.label}

    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        if isinstance(self.choices, str):
            cells = lists(table[self.choices], f"task.choices={self.choices}", name)
        else:
            parts = (table[column] for column in self.choices)
            cells = [list(row) for row in zip(*parts, strict=True)]
        rows = [[str(choice) for choice in row] for row in cells]
        count = len(rows[0]) if rows else 0
        labels = []
        for row, (given, label) in enumerate(zip(rows, table[columns.label], strict=True), start=1):
            if len(given) != count or count < 2:
                raise ValueError(
                    f"task.choices={self.choices}: row {row} of the {name} split has {len(given)} "
                    f"choices, the first {count}; all need as many, two or more"
                )
            if None in cells[row - 1]:
                raise ValueError(
                    f"task.choices={self.choices}: row {row} of the {name} split lacks a choice"
                )
            labels.append(columns.label_of(label, [str(i) for i in range(count)], row, name))
        questions = columns.texts(table, name)
        texts = [[question] * count for question in questions]
        return Split(texts=texts, pairs=rows, labels=labels)

    def corpus(self, split: Split) -> Iterator[str]:
        for question, choices in zip(split.texts, split.pairs or [], strict=True):
            yield question[0]
            yield from choices

    def task(self, network: nn.Module, splits: Splits, **place: Any) -> Task:
        count = len(splits.train.texts[0])
        return Task(network, choices=count, label_smoothing=self.label_smoothing, **place)
