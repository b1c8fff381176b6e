"""From a folder to a run; whatever is missing, torn or not what it should be is not there."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf

from lit_adv.reports import settings
from lit_adv.reports.run import Attacked, Run, State
from lit_adv.sweeps.trial import Pruned

# libyaml's, where PyYAML was built with it: ten times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

COSTS = {
    "train_seconds": "seconds",
    "train_seconds_per_step": "seconds_per_step",
    "train_peak_memory_mib": "peak_memory_mib",
}
"""Columns of costs, and what results.json calls them under `train`."""


def read(folder: Path, name: str) -> Run:
    """The run in this folder.

    Args:
        folder: with config.yaml or .hydra/.
        name: what it is called in a report.
    """
    results = as_json(folder / "results.json")
    failure = as_json(folder / "failure.json")
    finished = any(isinstance(results.get(split), dict) for split in ("val", "test"))
    state: State = "ok" if finished else broken(failure) if failure else "running"
    flooding, train = _part(results, "flooding"), _part(results, "train")
    attacks = _attacks(folder)
    found = _config(folder)
    steps, since = _number(train.get("steps")), _number(flooding.get("step"))
    return Run(
        folder=folder,
        name=name,
        state=state,
        reason=_reason(failure) if state in ("failed", "pruned") else "",
        settings=_settings(folder, found, results),
        overridden=_overridden(folder),
        metrics=_metrics(results, attacks) if finished else {},
        costs={c: n for c, key in COSTS.items() if (n := _number(train.get(key))) is not None},
        steps=None if steps is None else int(steps),
        level=_number(flooding.get("b")),
        since=int(since or 0),
        attacks=attacks,
        monitor=_monitor(found),
    )


def _monitor(config: Mapping[str, Any]) -> str | None:
    """The metric that a configuration, whoever's, names."""
    named = config.get("optimized_metric") or config.get("monitor")
    return named if isinstance(named, str) else None


def broken(failure: Mapping[str, Any]) -> Literal["failed", "pruned"]:
    """What a run is that ended without results, by its failure.json."""
    return "pruned" if failure.get("type") == Pruned.__name__ else "failed"


def as_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def as_yaml(path: Path) -> Any:
    """What a file holds; None where it cannot be read, or its last line has no end yet."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, LOADER) if text.endswith("\n") else None
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _config(folder: Path) -> dict[str, Any]:
    """The composed configuration; before a run has written it, the one that Hydra wrote."""
    config = as_yaml(folder / "config.yaml")
    if isinstance(config, dict):
        return config
    composed = as_yaml(folder / ".hydra" / "config.yaml")
    if not isinstance(composed, dict):
        return {}
    composed["output_dir"] = str(folder)  # the only value that Hydra alone knows
    try:
        config = OmegaConf.to_container(OmegaConf.create(composed), resolve=True)
    except Exception:  # whatever a resolver of the user's own raises
        return {}
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _settings(
    folder: Path, config: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, settings.Value]:
    found = settings.flat(config)
    if not found:
        return {}
    named = dict(results)
    if "method" not in named:
        hydra = _part(as_yaml(folder / ".hydra" / "hydra.yaml"), "hydra")
        named = _part(_part(hydra, "runtime"), "choices")
    return {**settings.choices(found, named), **found}


def _overridden(folder: Path) -> frozenset[str]:
    overrides = as_yaml(folder / ".hydra" / "overrides.yaml")
    lines = overrides if isinstance(overrides, list) else []
    return frozenset(str(line).partition("=")[0].lstrip("+~") for line in lines)


def _metrics(results: Mapping[str, Any], attacks: tuple[Attacked, ...]) -> dict[str, float]:
    named = {
        f"{split}/{name}": value
        for split in ("val", "test", "attack")
        for name, value in _part(results, split).items()
    }
    for each in attacks:
        named[f"attack/{each.name}"] = each.attacked
        named[f"attack/{each.name}/calibrated"] = each.calibrated
    known = ((name, _number(value)) for name, value in named.items())
    return {name: value for name, value in known if value is not None}


def _attacks(folder: Path) -> tuple[Attacked, ...]:
    found = []
    for path in sorted(folder.glob("attacks/*/attack.json")):
        told, page = as_json(path), path.with_name("attack.html")
        if not told:
            continue
        counted = _number(told.get("n"))
        found.append(
            Attacked(
                name=path.parent.name,
                examples=None if counted is None else int(counted),
                clean=_share(told.get("clean_accuracy")),
                attacked=_share(told.get("accuracy_under_attack")),
                calibrated=_share(_part(told, "calibrated").get("accuracy_under_attack")),
                page=page if page.is_file() else None,
            )
        )
    return tuple(found)


def _share(percent: Any) -> float | None:
    number = _number(percent)
    return None if number is None else number / 100


def _number(value: Any) -> float | None:
    """A finite number, or None.

    >>> _number(1), _number(float("nan")), _number(True), _number("1")
    (1.0, None, None, None)
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def _reason(failure: Mapping[str, Any]) -> str:
    """In one line, whatever was written."""
    said = failure.get("reason") or failure.get("type") or "no reason given"
    return " ".join(str(said).split())


def _part(node: Any, key: str) -> dict[str, Any]:
    part = node.get(key) if isinstance(node, dict) else None
    return part if isinstance(part, dict) else {}
