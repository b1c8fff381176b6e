"""`lit-adv soup`: average the weights of several checkpoints of one model."""

import argparse
from pathlib import Path
from typing import Any

from lit_adv.errors import report


def main() -> None:
    """Entry point; a user's mistake ends in one line."""
    parser = argparse.ArgumentParser("lit-adv soup", description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="of runs of one model and data")
    parser.add_argument(
        "--kind",
        choices=("greedy", "uniform"),
        default="greedy",
        help="greedy: each joins only if validation does not get worse; uniform: all",
    )
    parser.add_argument("--monitor", help="validation metric; default: the task's own")
    parser.add_argument("--output", type=Path, default=Path("soup"), help="folder of the result")
    options = parser.parse_args()
    report(lambda: cook(**vars(options)))


def cook(checkpoints: list[Path], kind: str, monitor: str | None, output: Path) -> dict[str, Any]:
    """Make the soup, test it, and write soup.ckpt, soup.json and export/.

    Raises:
        ValueError: a checkpoint cannot be read or is one of another model, or no such metric.
    """
    from lit_adv.kitchen import Kitchen  # here: --help need not load torch

    kitchen = Kitchen.of(checkpoints, monitor)
    return kitchen.cook(kind, output)
