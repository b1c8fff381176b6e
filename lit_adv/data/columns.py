"""From the columns of tables to splits: labels become class indices, or numbers for regression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_adv.data.splits import Label, Split, Splits

Table = Mapping[str, Sequence[Any]]


@dataclass(kw_only=True)
class Columns:
    """Which columns hold what.

    Args:
        text: name of the text column.
        text_pair: name of the second text's column; None = single texts.
        label: name of the label column.
        regression: labels are numbers, not classes.
        label_names: names of the classes in the order of their indices; None = found in the labels.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    regression: bool = False
    label_names: list[str] | None = None

    def splits(self, tables: Mapping[str, Table], held_out: float, seed: int) -> Splits:
        """Splits from tables named train, validation and test; missing ones are cut from train.

        Args:
            tables: columns of each split that there is.
            held_out: share of the training rows that stands in for a missing split.
            seed: of the cut.

        Raises:
            ValueError: a column is missing, or a label is neither a number nor a name of a class.
        """
        for name, table in tables.items():
            self._check_columns(name, table)
        names = None if self.regression else self._names(tables["train"])
        parts = {name: self._split(name, table, names) for name, table in tables.items()}
        size = max(1, round(held_out * len(parts["train"])))
        for name in ("test", "validation"):
            if name not in parts:
                parts["train"], parts[name] = parts["train"].cut(size, seed)
        return Splits(**parts, label_names=names)

    def _check_columns(self, name: str, table: Table) -> None:
        for key in ("text", "text_pair", "label"):
            column = getattr(self, key)
            if column is not None and column not in table:
                raise ValueError(
                    f"data.{key}={column}: no such column in the {name} split; "
                    f"it has {', '.join(table) or 'no columns'}"
                )

    def _split(self, name: str, table: Table, names: list[str] | None) -> Split:
        index = {} if names is None else {label: number for number, label in enumerate(names)}
        labels: list[Label] = []
        for row, value in enumerate(table[self.label], start=1):
            label = _number(value) if names is None else _index(value, index)
            if label is None:
                wanted = "a number" if names is None else f"one of {', '.join(index)} or its index"
                raise ValueError(
                    f"data.label={self.label}: row {row} of the {name} split has the label "
                    f"{value!r}, which is not {wanted}"
                )
            labels.append(label)
        texts = [str(text) for text in table[self.text]]
        pairs = [str(text) for text in table[self.text_pair]] if self.text_pair else None
        return Split(texts=texts, pairs=pairs, labels=labels)

    def _names(self, train: Table) -> list[str]:
        if self.label_names is not None:
            return list(self.label_names)
        values = set(train[self.label])
        if not values:
            return []
        if all(isinstance(value, int) for value in values):
            if min(values) < 0:
                raise ValueError(
                    f"data.label={self.label}: the train split has the label {min(values)}, which "
                    "is no class index; an unlabelled split cannot be trained on"
                )
            return [str(index) for index in range(max(values) + 1)]
        if all(isinstance(value, str) and value for value in values):
            return sorted(values)
        odd = next(v for v in train[self.label] if not isinstance(v, int | str) or v == "")
        row = list(train[self.label]).index(odd) + 1
        raise ValueError(
            f"data.label={self.label}: row {row} of the train split has the label {odd!r}, which "
            "is neither a class index nor a name; set data.regression=true if labels are numbers"
        )


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


def _index(value: Any, index: Mapping[str, int]) -> int | None:
    if str(value) in index:
        return index[str(value)]
    if isinstance(value, int) and 0 <= value < len(index):
        return value
    return None
