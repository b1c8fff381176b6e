"""The settings of a run as one flat table: `flood.b` -> 0.1."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from lit_adv.turn import NO_FLOOD

Value: TypeAlias = str | int | float | bool | None
Settings: TypeAlias = Mapping[str, Value]

CHOSEN = ("method", "flood", "proximal", "update", "mask", "task", "model", "peft", "data")
"""Groups of conf/ whose choices results.json names."""

GROUPS = (*CHOSEN, "optimizer")
"""Groups whose target a report calls by a short name, in the order of columns."""

PLAIN = {
    "method": "lit_adv.methods.finetune.FineTune",
    "flood": NO_FLOOD,
    "proximal": "lit_adv.proximal.none.NoProximal",
    "update": "lit_adv.updates.plain.Plain",
    "mask": "lit_adv.masks.none.NoMask",
}
"""The target of every group in plain fine-tuning."""

PLACES = (
    *("output_dir", "ckpt_path", "optimized_metric", "checkpoint", "logger", "hydra"),
    *("data.cache", "data.num_workers", "trainer.default_root_dir"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
    *("attack.output", "attack.processes", "attack.device"),
    *("attack.concurrency", "attack.batch_tokens"),
)
"""Where and how a run writes and computes: no setting at all."""

WITHOUT_EFFECT = ("seed", "recipe", "attack", "trainer.log_every_n_steps")
"""Shown, but no part of what is trained beside its seed: values that others refer to (`recipe`),
what is measured afterwards, how much is noted."""

WATCHERS = (
    *("LearningRateMonitor", "GradientAccordance", "LossUpAccUp", "PenaltyInequality"),
    *("AccuracyUnderAttack", "TQDMProgressBar", "RichProgressBar", "DeviceStatsMonitor"),
)
"""Callbacks that change nothing in the training that they watch."""


def flat(config: Mapping[str, Any]) -> dict[str, Value]:
    """A composed configuration by dotted keys, without places and watchers; lists become JSON.

    >>> flat({"flood": {"b": 0.1}, "output_dir": "x", "optimizer": {"betas": [0.9, 0.99]}})
    {'flood.b': 0.1, 'optimizer.betas': '[0.9, 0.99]'}
    """
    watchers = tuple(
        f"callbacks.{name}"
        for name, node in _mapping(config.get("callbacks")).items()
        if str(_mapping(node).get("_target_")).rpartition(".")[2] in WATCHERS
    )
    return {key: v for key, v in _leaves(config) if not within(key, (*PLACES, *watchers))}


def within(key: str, groups: tuple[str, ...]) -> bool:
    """Whether a key is one of these or below one.

    >>> within("flood.b", ("flood",)), within("flooding", ("flood",))
    (True, False)
    """
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def effective(settings: Settings) -> dict[str, Value]:
    """What a training depends on, beside its seed; not the names of choices, but what they hold."""
    return {
        key: v
        for key, v in settings.items()
        if key not in GROUPS and not within(key, WITHOUT_EFFECT)
    }


def choices(settings: Settings, named: Mapping[str, Any]) -> dict[str, Value]:
    """The choice of every group by its name; where that is unknown, by the name of its target.

    >>> choices({"flood._target_": "lit_adv.flood.fixed.Fixed"}, {"method": "smart/paper"})
    {'method': 'smart/paper', 'flood': 'Fixed'}
    """
    found: dict[str, Value] = {}
    for group in GROUPS:
        target = settings.get(f"{group}._target_")
        if group in CHOSEN and isinstance(named.get(group), str):
            found[group] = named[group]
        elif target is not None:
            plain = "finetune" if group == "method" else "plain" if group == "update" else "none"
            name = str(target).rpartition(".")[2]
            found[group] = plain if target == PLAIN.get(group) else name
    return found


def is_plain(settings: Settings) -> bool:
    """Whether this is plain fine-tuning."""
    return "method._target_" in settings and all(
        settings.get(f"{group}._target_", target) == target for group, target in PLAIN.items()
    )


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Value]]:
    for key, value in node.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, list):
            yield name, json.dumps(value, default=str)
        elif isinstance(value, str | int | float) or value is None:
            yield name, "nan" if value != value else value  # a NaN would not equal itself
        else:
            yield name, str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
