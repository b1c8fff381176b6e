"""The table that is printed when attacks are done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = {
    "clean": ("clean_accuracy", ".1f"),
    "attacked": ("accuracy_under_attack", ".1f"),
    "success": ("success_rate", ".1f"),
    "queries": ("mean_queries", ".1f"),
    "changed": ("mean_changed", ".1f"),
    "similar": ("mean_similarity", ".3f"),
}


def show(outcomes: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Print a line per recipe, and one at the temperature that fits validation."""
    # Without lines between the columns: so it fits into 80 letters.
    options: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0)}
    table = Table(title="accuracy under attack, %", title_justify="left", **options)
    table.add_column("", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for name, outcome in outcomes.items():
        table.add_row(name, *_cells(outcome))
        calibrated = outcome["calibrated"]
        if calibrated is not None:
            label = f"  at T = {calibrated['temperature']:.2f}"
            table.add_row(label, *_cells(calibrated))
    console = Console()
    console.print(table)
    for note in dict.fromkeys(note for each in outcomes.values() for note in each["notes"]):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"results in {folder}", highlight=False, soft_wrap=True)


def _cells(figures: Mapping[str, Any]) -> list[str]:
    values = [(figures[key], form) for key, form in COLUMNS.values()]
    return ["-" if value is None else f"{value:{form}}" for value, form in values]
