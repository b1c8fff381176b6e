"""Tables in files: jsonl, json, csv, tsv or parquet, also gzipped."""

import csv
import glob
import gzip
from pathlib import Path
from typing import Any

from lit_adv.data.columns import Table

CELLS = {"keep_default_na": False, "na_values": [""]}
"""Missing is what is empty: "NA", "None" and "null" are texts and names of classes."""

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", CELLS),
    ".tsv": ("csv", {**CELLS, "sep": "\t"}),
    ".parquet": ("parquet", {}),
}


def stem_and_suffix(file: Path) -> tuple[str, str]:
    """Of the name without .gz."""
    name = Path(file.name.removesuffix(".gz"))
    return name.stem, name.suffix


def read(file: Path, key: str = "data.path") -> Table:
    """The columns of a file.

    Raises:
        ValueError: its format is unknown, or it is empty or cannot be read.
    """
    suffix = stem_and_suffix(file)[1]
    if suffix not in FORMATS:
        raise ValueError(f"{key}={file}: unknown format; use one of {', '.join(FORMATS)}")
    if not file.stat().st_size:
        raise ValueError(f"{key}={file}: the file is empty")
    kind, options = FORMATS[suffix]
    if suffix == ".tsv" and not _quotes(file):
        options = {**options, "quoting": csv.QUOTE_NONE}

    import datasets  # here: half a second that generated data need not pay

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error below says it in one line
    try:
        name = glob.escape(str(file))
        table = datasets.load_dataset(kind, data_files=name, split="train", **options)
    except Exception as error:  # of datasets, pandas, pyarrow, gzip: no two formats fail alike
        cause = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{key}={file}: cannot be read as {kind}: {cause}") from error
    return table.to_dict()


def _quotes(file: Path) -> bool:
    """Whether quotation marks hold the cells of a TSV together, or are characters like any other.

    The latter where every line has as many cells as the first without them, and some cell begins
    with one that it does not end with, as in GLUE's files: there it would swallow the next rows.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    width, unclosed = 0, False
    with opened(file, "rt", encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            cells = line.rstrip("\r\n").split("\t")
            if cells == [""]:
                continue
            width = width or len(cells)
            if len(cells) != width:
                return True
            unclosed |= any(cell[:1] == '"' and (cell == '"' or cell[-1] != '"') for cell in cells)
    return not unclosed
