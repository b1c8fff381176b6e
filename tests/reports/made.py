"""Folders of runs, written by hand: what a run leaves, with figures that are known."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

TARGETS = {
    ("method", "finetune"): "lit_adv.methods.finetune.FineTune",
    ("method", "pgd"): "lit_adv.methods.pgd.PGD",
    ("method", "smart"): "lit_adv.methods.smart.SMART",
    ("flood", "none"): "lit_adv.flood.none.NoFlood",
    ("flood", "fixed"): "lit_adv.flood.fixed.Fixed",
    ("proximal", "none"): "lit_adv.proximal.none.NoProximal",
    ("update", "plain"): "lit_adv.updates.plain.Plain",
    ("update", "sam"): "lit_adv.updates.sam.SAM",
    ("mask", "none"): "lit_adv.masks.none.NoMask",
    ("model", "tiny"): "lit_adv.models.tiny.build",
    ("data", "reviews"): "lit_adv.data.reviews.Reviews",
}
NEUTRAL = {
    **{"method": "finetune", "flood": "none", "proximal": "none", "update": "plain"},
    **{"mask": "none", "model": "tiny", "data": "reviews"},
}


def run(
    folder: Path,
    chosen: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    val: Mapping[str, float | None] | None = None,
    test: Mapping[str, float | None] | None = None,
    seconds: float = 10.0,
    overridden: Sequence[str] = (),
    flooding: Mapping[str, Any] | None = None,
    failure: str | None = None,
    monitor: str | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
    attacks: Mapping[str, tuple[float, float, float | None]] | None = None,
) -> Path:
    """A run's folder.

    Args:
        folder: to be made.
        chosen: choices by group, of `NEUTRAL` where they are not given.
        options: by dotted key.
        seed: of the run.
        val: metrics; with those of the test split it makes the run a finished one.
        test: metrics.
        seconds: of training.
        overridden: keys that were set on the command line.
        flooding: of results.json.
        failure: reason of a failed run.
        monitor: of the configuration.
        rows: of metrics.csv.
        attacks: (clean, attacked, calibrated) per cent by recipe.
    """
    choices = {**NEUTRAL, **(chosen or {})}
    (folder / ".hydra").mkdir(parents=True)
    config = composed(folder, choices, options or {}, seed, monitor)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    lines = [f"{key}=given" for key in overridden]
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(lines))
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    if val is not None or test is not None:
        results = {
            **choices,
            "seed": seed,
            "flooding": flooding or {},
            "val": dict(val or {}),
            "test": dict(test or {}),
            "train": {
                "seconds": seconds,
                "seconds_per_step": seconds / 100,
                "steps": 100,
                "peak_memory_mib": 512.0,
            },
        }
        (folder / "results.json").write_text(json.dumps(results))
    if failure is not None:
        (folder / "failure.json").write_text(json.dumps({"reason": failure, "type": "ValueError"}))
    if rows:
        logged(folder / "metrics.csv", rows)
    for name, figures in (attacks or {}).items():
        attacked(folder / "attacks" / name, *figures)
    return folder


def composed(
    folder: Path,
    choices: Mapping[str, str],
    options: Mapping[str, Any],
    seed: int,
    monitor: str | None,
) -> dict[str, Any]:
    """A configuration as a run writes it, shortened."""
    config: dict[str, Any] = {
        "seed": seed,
        "monitor": monitor,
        "optimized_metric": None,
        "recipe": {"radius": 0.05},
        "output_dir": str(folder),
        **{group: {"_target_": target(group, name)} for group, name in choices.items()},
        "optimizer": {"_target_": "lit_adv.descent.adamw", "lr": 0.001, "betas": [0.9, 0.999]},
        "trainer": {"max_epochs": 2, "enable_progress_bar": False},
        "callbacks": {"rate": {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor"}},
        "logger": {"csv": {"save_dir": str(folder)}},
        "attack": {"recipes": {}, "n": 1000},
    }
    for key, value in options.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def target(group: str, name: str) -> str:
    """The class behind a choice; an invented one for names that the tests invent."""
    return TARGETS.get((group, name), f"lit_adv.{group}.{name.replace('/', '.')}.Made")


def logged(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """metrics.csv with these rows, empty where one does not say."""
    names = sorted({name for row in rows for name in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def attacked(folder: Path, clean: float, under: float, calibrated: float | None) -> None:
    """What an attack leaves, in per cent."""
    folder.mkdir(parents=True)
    again = None if calibrated is None else {"accuracy_under_attack": calibrated}
    told = {"n": 100, "clean_accuracy": clean, "accuracy_under_attack": under, "calibrated": again}
    (folder / "attack.json").write_text(json.dumps(told))
    (folder / "attack.html").write_text("<!DOCTYPE html>")


def scores(accuracy: float, loss: float = 0.5) -> dict[str, float | None]:
    """Metrics of a split."""
    return {"accuracy": accuracy, "loss": loss}


def done(val: float, test: float) -> dict[str, Any]:
    """What makes a run a finished one: its accuracies."""
    return {"val": scores(val), "test": scores(test)}
