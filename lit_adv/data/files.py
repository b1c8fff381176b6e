"""Tables in files: jsonl, json, csv, tsv or parquet, also gzipped."""

import glob
from pathlib import Path
from typing import Any

from lit_adv.data.columns import Table

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
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
