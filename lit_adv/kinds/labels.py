"""A label for a text or a pair: one class of several, or a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lit_adv.data.splits import Split, Splits
from lit_adv.kinds.kind import Kind
from lit_adv.ranges import one_of
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.cross_entropy import balanced
from lit_adv.tasks.regression import Regression

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table


@dataclass(kw_only=True, frozen=True)
class Labels(Kind):
    """Classification or regression, as the labels of the data are.

    Args:
        class_weights: of the classes in the order of their names; `balanced` = each class counts
            the same in all; None = each example does.
        label_smoothing: share of the target that all classes have alike.
    """

    class_weights: Literal["balanced"] | list[float] | None = None
    label_smoothing: float = 0.0

    name = "labels"
    architecture = "SequenceClassification"
    adapters = "SEQ_CLS"
    drops_tokens = True

    def needs(self, columns: Columns) -> dict[str, str]:
        return columns.of_labelled_texts

    def names(self, columns: Columns, train: Table) -> list[str] | None:
        return None if columns.regression else columns.names_in(train[columns.label])

    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        labels = [
            columns.label_of(value, names, row, name)
            for row, value in enumerate(table[columns.label], start=1)
        ]
        return Split(texts=columns.texts(table, name), pairs=columns.pairs(table), labels=labels)

    def sizes(self, splits: Splits) -> dict[str, Any]:
        return {"num_labels": 1} if splits.label_names is None else super().sizes(splits)

    def task(self, network: nn.Module, splits: Any, **place: Any) -> Classification | Regression:
        """Of texts; or, with their place, of images."""
        if splits.label_names is None:
            return self._regression(network, splits, **place)
        labels, count = splits.train.labels, len(splits.label_names)
        return Classification(
            network,
            num_labels=count,
            class_weights=weights_of(self.class_weights, labels, count),
            label_smoothing=self.label_smoothing,
            **place,
        )

    def _regression(
        self, network: nn.Module, splits: Splits, head_init: str = "random", **place: Any
    ) -> Regression:
        for key, value, none in (
            ("model.head_init", head_init, "random"),
            ("task.class_weights", self.class_weights, None),
            ("task.label_smoothing", self.label_smoothing, 0),
        ):
            if value != none:
                to = "null" if none is None else none
                raise ValueError(
                    f"{key}={value}: the labels are numbers, which have no classes; set {key}={to}"
                )
        values = splits.train.labels
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        return Regression(network, variance=variance, **place)


def kind_of(splits: Any) -> Kind:
    """What the rows of these splits teach: a label each, if nothing else is said."""
    return splits.kind or Labels()


def weights_of(asked: Any, labels: Any, count: int) -> list[float] | None:
    """The weight of every class, as asked for.

    Raises:
        ValueError: it is asked for by another word.
    """
    if isinstance(asked, str):
        one_of(("balanced",), "task.class_weights", asked)
        return balanced(labels, count)
    return None if asked is None else list(asked)
