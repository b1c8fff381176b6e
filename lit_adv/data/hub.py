"""Any data set of the Hugging Face hub, by its name."""

from dataclasses import dataclass
from typing import Any

from lit_adv.data.columns import Columns
from lit_adv.data.datamodule import TextData
from lit_adv.data.splits import Splits


@dataclass(kw_only=True, eq=False)
class Hub(TextData):
    """A data set that `datasets.load_dataset` loads; from its cache without a network.

    Many benchmarks publish no labels for their test split: then name the official validation split
    as `test`, and leave `validation` out, so that it is cut from the training rows. Reporting and
    choosing the checkpoint then use different rows.

    Args:
        path: name on the hub, `owner/name`.
        name: configuration of the data set; None = its only one.
        train: name of the training split.
        validation: name of the validation split; None = cut from the training rows.
        test: name of the test split; None = cut from the training rows.
        text: name of the text column.
        text_pair: name of the second text's column; None = single texts.
        label: name of the label column.
        regression: labels are numbers, not classes.
        label_names: names of the classes; None = those the data set gives, else found.
        validation_size: share of the training rows cut off where a split is missing.

    Raises:
        ValueError: the data set, a split or a column cannot be had, or a label cannot be read.
    """

    path: str
    name: str | None = None
    train: str = "train"
    validation: str | None = "validation"
    test: str | None = "test"
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    regression: bool = False
    label_names: list[str] | None = None
    validation_size: float = 0.1

    def load(self) -> Splits:
        import datasets  # here: half a second that generated data need not pay

        wanted = {"train": self.train, "validation": self.validation, "test": self.test}
        names, tables = self.label_names, {}
        for split, source in wanted.items():
            if source is None:
                continue
            try:
                table = datasets.load_dataset(self.path, self.name, split=source)
            except Exception as error:
                raise ValueError(
                    f"data.path={self.path}: the {split} split {source!r} cannot be loaded: "
                    f"{(str(error) or type(error).__name__).splitlines()[0]}"
                ) from error
            names = names or _names(table.features.get(self.kind.labelled_by(self.label)))
            tables[split] = table.to_dict()
        columns = Columns(
            text=self.text,
            text_pair=self.text_pair,
            label=self.label,
            regression=self.regression,
            label_names=names,
        )
        return columns.splits(tables, self.validation_size, self.seed, self.kind)


def _names(feature: Any) -> list[str] | None:
    """Of the classes, where a column, or what its lists hold, is one of class labels."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "names", None)
