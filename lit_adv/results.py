"""results.json and the table printed at a run's end."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import lit_adv


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("torch", "lightning", "transformers", "torchmetrics", "hydra-core")
    return {
        "lit_adv": lit_adv.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def title(results: dict[str, Any]) -> str:
    """What was run, in a few words.

    >>> title({"method": "smart", "flood": "none", "proximal": "mbpp", "model": "m", "data": "d"})
    'smart + mbpp: m on d'
    """
    groups = ("method", "flood", "proximal", "update", "mask", "peft")
    parts = [results.get(group, "none") for group in groups]
    chosen = " + ".join(part for part in parts if part not in ("none", "plain"))
    return f"{chosen}: {results['model']} on {results['data']}"


def write(path: Path, results: dict[str, Any]) -> None:
    """Write JSON whole or not at all; a number that is not finite becomes null."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(_finite(results), indent=2, allow_nan=False) + "\n")
    part.replace(path)


def show(results: dict[str, Any], folder: Path) -> None:
    """Print a short table of the metrics on validation and test."""
    table = Table(title=title(results), title_justify="left")
    table.add_column("")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    for name in {**results["val"], **results["test"]}:
        values = [results[split].get(name) for split in ("val", "test")]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    for name, value in results.get("attack", {}).items():  # a callback's, of the validation split
        table.add_row(f"attack/{name}", f"{value:.4f}", "")
    console = Console()
    console.print(table)
    train = results["train"]
    for line in (
        f"{train['steps']} steps in {train['seconds']:.1f} s, "
        f"{1000 * train['seconds_per_step']:.1f} ms each, {train['peak_memory_mib']:.0f} MiB",
        f"results in {folder}",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
