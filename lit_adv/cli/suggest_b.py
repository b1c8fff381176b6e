"""`lit-adv suggest-b`: flood levels that a run without flooding suggests."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lit_adv.errors import report

if TYPE_CHECKING:
    from lit_adv.levels import Suggestions


def main() -> None:
    """Entry point; a user's mistake ends in one line."""
    parser = argparse.ArgumentParser("lit-adv suggest-b", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run with flood=none")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    report(lambda: suggest(options.run, as_json=options.json))


def suggest(run: Path, *, as_json: bool) -> None:
    """Print the levels, as a table or as JSON.

    Raises:
        ValueError: the folder is not that of a run without flooding, or that suggests no level.
    """
    from lit_adv import levels, turn  # here: --help need not load what reads runs

    suggestions = turn.read(run, levels.suggest)
    if as_json:
        found = [{**asdict(each), "command": each.command} for each in suggestions.found]
        whole = {**asdict(suggestions), "found": found, "sweep": suggestions.sweep}
        print(json.dumps(whole, indent=2))
    else:
        show(suggestions)


def show(suggestions: "Suggestions") -> None:
    """The levels on the console, and the lines that train with them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="flood levels", title_justify="left")
    for name in ("", "event"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "epoch", "b"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in suggestions.found:
        cells = (str(each.step), str(each.epoch), f"{each.b:.3g}")
        table.add_row(f"[bold]{each.name}[/bold]", each.event, *cells)
    console = Console()
    console.print(table)
    lines = [
        *(f"no level: {reason}" for reason in suggestions.lacking),
        "To train, with the run's other options:",
        *(f"{each.command}  # {each.name}" for each in suggestions.found),
        f"{suggestions.sweep}  # around all",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
