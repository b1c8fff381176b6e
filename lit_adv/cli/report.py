"""`lit-adv report FOLDER...`: what came out of the runs below these folders, at any time."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lit_adv.errors import report as told


def main() -> None:
    """Entry point; a user's mistake ends in one line."""
    parser = argparse.ArgumentParser("lit-adv report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="of a sweep, or of runs; any depth")
    parser.add_argument("--metric", help="such as test/accuracy; default: what the runs go by")
    parser.add_argument("--output", type=Path, help="folder to write to; default: the first FOLDER")
    options = parser.parse_args()
    told(lambda: report(options.folder, options.output, options.metric))


def report(folders: Sequence[Path], output: Path | None, metric: str | None) -> None:
    """Write the report and say where it is.

    Raises:
        ValueError: see `lit_adv.reports.write`.
    """
    from lit_adv import reports  # here: --help need not load what draws

    print(f"report in {reports.write(folders, output, metric)}")
