"""From the columns of tables to splits: labels become class indices, or numbers for regression."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_adv.data.splits import Label, Splits
from lit_adv.kinds.kind import Kind

MOST = 1000
"""Classes that may be without a row, beside ten for each that has one."""

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

    def splits(self, tables: Mapping[str, Table], held_out: float, seed: int, kind: Kind) -> Splits:
        """Splits from tables named train, validation and test; missing ones are cut from train.

        Args:
            tables: columns of each split that there is.
            held_out: share of the training rows that stands in for a missing split.
            seed: of the cut.
            kind: what the rows teach.

        Raises:
            ValueError: a column is missing, or a label is neither a number nor a name of a class.
        """
        for name, table in tables.items():
            self._check_columns(name, table, kind)
        names = kind.names(self, tables["train"])
        parts = {name: kind.split(self, name, table, names) for name, table in tables.items()}
        size = max(1, round(held_out * len(parts["train"])))
        for name in ("test", "validation"):
            if name not in parts:
                if not kind.may_be_cut:
                    raise ValueError(
                        f"data.{name}: task={kind.name} needs rows of their own to measure by, and "
                        f"there is no {name} split"
                    )
                parts["train"], parts[name] = parts["train"].cut(size, seed)
        return Splits(**parts, label_names=names)

    def texts(self, table: Table, split: str) -> list[str]:
        """The texts of a table.

        Raises:
            ValueError: one is missing.
        """
        for row, text in enumerate(table[self.text], start=1):
            if text is None:
                raise ValueError(f"data.text={self.text}: row {row} of the {split} split has none")
        return [str(text) for text in table[self.text]]

    def pairs(self, table: Table) -> list[str] | None:
        """The second texts, if there are some; a missing one is empty."""
        return self.beside(table, self.text_pair) if self.text_pair else None

    def beside(self, table: Table, column: str) -> list[str]:
        """Texts beside the texts; a missing one is empty."""
        return ["" if text is None else str(text) for text in table[column]]

    @property
    def of_labelled_texts(self) -> dict[str, str]:
        """Those of texts or pairs with labels, by the setting that names each."""
        named = {"data.text": self.text, "data.text_pair": self.text_pair, "data.label": self.label}
        return {key: column for key, column in named.items() if column is not None}

    @property
    def key(self) -> str:
        """The setting that names the labels, as errors say it."""
        return f"data.label={self.label}"

    def label_of(
        self, value: Any, names: list[str] | None, row: int, split: str, key: str = ""
    ) -> Label:
        """Index of the class, or number, that this value of a row stands for.

        Raises:
            ValueError: it is none.
        """
        index = {} if names is None else {label: number for number, label in enumerate(names)}
        label = _number(value) if names is None else _index(value, index)
        if label is None:
            wanted = "a number" if names is None else f"one of {', '.join(index)} or its index"
            raise ValueError(
                f"{key or self.key}: row {row} of the {split} split has the label {value!r}, "
                f"which is not {wanted}"
            )
        return label

    def names_in(self, labels: Sequence[Any], key: str = "") -> list[str]:
        """Names of the classes: as given, or those that these labels of the training rows have.

        Raises:
            ValueError: some are neither class indices nor names.
        """
        if self.label_names is not None:
            return list(self.label_names)
        values: set[Any] = {value for value in labels if isinstance(value, Hashable)}
        if not labels:
            return []
        if None in values:
            row = list(labels).index(None) + 1
            raise ValueError(f"{key or self.key}: row {row} of the train split has none")
        if all(isinstance(value, int) for value in labels):
            if min(values) < 0:
                raise ValueError(
                    f"{key or self.key}: the train split has the label {min(values)}, which is no "
                    "class index; an unlabelled split cannot be trained on"
                )
            if max(values) >= MOST + 10 * len(values):
                raise ValueError(
                    f"{key or self.key}: the train split has the label {max(values)}, and only "
                    f"{len(values)} different ones; indices of classes count from 0 without gaps: "
                    "number them so, or give names (strings)"
                )
            return [str(index) for index in range(max(values) + 1)]
        if all(isinstance(value, str) and value for value in labels):
            return sorted(values)
        odd = next(v for v in labels if not isinstance(v, int | str) or v == "")
        row = list(labels).index(odd) + 1
        raise ValueError(
            f"{key or self.key}: row {row} of the train split has the label {odd!r}, which is "
            "neither a class index nor a name; set data.regression=true if labels are numbers"
        )

    def _check_columns(self, name: str, table: Table, kind: Kind) -> None:
        for key, column in kind.needs(self).items():
            if column not in table:
                raise ValueError(
                    f"{key}={column}: no such column in the {name} split; "
                    f"it has {', '.join(table) or 'no columns'}"
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
