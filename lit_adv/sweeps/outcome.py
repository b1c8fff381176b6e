"""How a run of a sweep stands, as its folder tells it."""

from pathlib import Path
from typing import Any, Literal, TypeAlias

from lit_adv import failure
from lit_adv.reports.reading import as_json, as_yaml, broken

State: TypeAlias = Literal["finished", "pruned", "failed", "missing"]


def state(folder: Path) -> State:
    """Finished: it has all results that its configuration asks for, the attacks' too."""
    found = as_json(folder / "results.json")
    if found and ("attack" in found or not _attacked(folder)):
        return "finished"
    failed = folder / failure.NAME
    return broken(as_json(failed)) if failed.exists() else "missing"


def _attacked(folder: Path) -> bool:
    config: Any = as_yaml(folder / "config.yaml")
    return bool(isinstance(config, dict) and (config.get("attack") or {}).get("recipes"))
