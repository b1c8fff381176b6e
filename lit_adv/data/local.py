"""Files on this machine: jsonl, json, csv, tsv or parquet, also gzipped."""

import json
from dataclasses import dataclass
from pathlib import Path

from lit_adv.data.columns import Columns
from lit_adv.data.datamodule import TextData
from lit_adv.data.files import FORMATS, read, stem_and_suffix
from lit_adv.data.splits import Splits

NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(kw_only=True, eq=False)
class Local(TextData):
    """A folder with train, validation and test files, or one file that is cut into the three.

    Where a validation or test file is missing, part of the training rows is cut off to stand in
    for it.

    Args:
        path: folder or file.
        text: name of the text column.
        text_pair: name of the second text's column; None = single texts, `auto` = `text_pair` if
            present.
        label: name of the label column.
        regression: labels are numbers, not classes.
        label_names: names of the classes; None = those of a `meta.json` beside the files, else
            found.
        validation_size: share of the training rows cut off where a split is missing.

    Raises:
        ValueError: no such file or column, an unknown format, or an unreadable label.
    """

    path: str
    text: str = "text"
    text_pair: str | None = "auto"
    label: str = "label"
    regression: bool = False
    label_names: list[str] | None = None
    validation_size: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.validation_size < 1:
            raise ValueError(f"data.validation_size={self.validation_size}: a share in (0, 1)")

    def load(self) -> Splits:
        tables = {name: read(path) for name, path in self._files().items()}
        auto = self.text_pair == "auto"
        pair = ("text_pair" if "text_pair" in tables["train"] else None) if auto else self.text_pair
        columns = Columns(
            text=self.text,
            text_pair=pair,
            label=self.label,
            regression=self.regression,
            label_names=self.label_names or self._meta_names(),
        )
        return columns.splits(tables, self.validation_size, self.seed, self.kind)

    def _files(self) -> dict[str, Path]:
        path = Path(self.path)
        if not path.exists():
            raise ValueError(f"data.path={self.path}: no such file or folder")
        if path.is_file():
            return {"train": path}
        found = {
            name: file
            for name, stems in NAMES.items()
            for file in sorted(path.iterdir())
            if stem_and_suffix(file)[0] in stems and stem_and_suffix(file)[1] in FORMATS
        }
        if "train" not in found:
            raise ValueError(
                f"data.path={self.path}: no training file; wanted train with one of the endings "
                f"{', '.join(FORMATS)} (also .gz)"
            )
        return found

    def _meta_names(self) -> list[str] | None:
        meta = Path(self.path) / "meta.json"
        if self.regression or not meta.is_file():
            return None
        return json.loads(meta.read_text()).get("label_names")
