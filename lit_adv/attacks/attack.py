"""Attack a victim as a configuration says: each recipe in a folder of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.multiprocessing.spawn import spawn

from lit_adv import config
from lit_adv.attacks import resources, source
from lit_adv.attacks.resources import Resources, describe
from lit_adv.attacks.series import Series
from lit_adv.attacks.session import Session
from lit_adv.attacks.settings import Settings
from lit_adv.data.batched import Batched
from lit_adv.data.datamodule import TextData
from lit_adv.kinds.labels import Labels
from lit_adv.quiet import quieten
from lit_adv.ranges import whole

LOADING = ("batch_size", "eval_batch_size", "num_workers", "cache", "unlabelled")
"""Keys of `data` that do not change what is attacked."""


def attack(victim: Path, cfg: DictConfig, folder: Path) -> dict[str, dict[str, Any]]:
    """Attack with every recipe, in one process or in several that share the examples.

    Args:
        victim: see `source.load`.
        cfg: with `attack` and `data`.
        folder: for a folder per recipe.

    Returns:
        What each attack.json holds, by recipe.

    Raises:
        ValueError: something is missing or does not fit, said before the first attack.
        torch.multiprocessing.ProcessException: one of several processes failed; the same command
            goes on.
    """
    count = whole(1, "attack.processes", cfg.attack.processes)
    config.check(cfg)
    plain = OmegaConf.to_container(cfg, resolve=True)
    series = prepare(victim, plain, folder)
    for each in series:  # a folder of other settings is refused before the first attack
        each.claim()
    if count == 1:
        for each in series:
            each.work()
    else:
        _together(series, count, (victim, plain, folder))
    return {each.name: each.conclude() for each in series}


def _together(series: list[Series], count: int, arguments: tuple[Path, Any, Path]) -> None:
    """Work in this process and in as many more as it takes, which share its threads."""
    threads = torch.get_num_threads()
    share = max(1, threads // count)
    others = spawn(_part, (count, share, *arguments), nprocs=count - 1, join=False)
    assert others is not None
    torch.set_num_threads(share)
    try:
        for each in series:
            each.work(0, count)
        while not others.join():
            pass
    finally:
        torch.set_num_threads(threads)


def brief(outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """The accuracy under each attack, as a share like other metrics."""
    percent = {name: each["accuracy_under_attack"] for name, each in outcomes.items()}
    return {name: None if value is None else value / 100 for name, value in percent.items()}


def prepare(victim: Path, plain: Any, folder: Path) -> list[Series]:
    """All that attacks need, read and checked."""
    quieten()
    cfg = DictConfig(plain)
    recipes, settings, wanted = options(cfg.attack)
    device = _device(cfg.attack.device)
    loaded = source.load(victim)
    network: nn.Module = loaded.network
    data: TextData = instantiate(cfg.data)
    network.to(device)  # pyright: ignore
    session = Session(network, loaded.tokenizer, data, settings, wanted)
    rows = {k: v for k, v in plain["data"].items() if k not in LOADING}
    name = Path(rows["path"]).name if "path" in rows else type(data).__name__.lower()
    described = {
        "victim": describe("victim", source.weights(victim)),
        "data": {"name": name, **rows, "sha256": data.splits.digest},
    }
    return [
        Series(name, recipe, session, folder / name, described) for name, recipe in recipes.items()
    ]


def options(attack: DictConfig) -> tuple[dict[str, Any], Settings, Resources]:
    """The recipes by name, the session's settings and the resources of a configuration.

    Raises:
        ValueError: a value out of its range.
    """
    plain: Any = OmegaConf.to_container(attack, resolve=True)
    recipes = {str(name): instantiate(node) for name, node in plain["recipes"].items()}
    of_session = {k: v for k, v in plain.items() if k in Settings.__dataclass_fields__}
    return recipes, Settings(**of_session), Resources(**plain["resources"])


def check(attack: DictConfig, data: Batched[Any]) -> None:
    """Refuse, before a training, attacks that could not be made after it.

    Raises:
        ValueError: the data are no texts, a value is out of its range, or a resource is missing.
    """
    names = ", ".join(attack.recipes)
    if not isinstance(data, TextData):
        raise ValueError(f"attack={names}: exchanges words, and the data are images; attack=none")
    if not isinstance(data.kind, Labels):
        raise ValueError(
            f"attack={names}: for task=auto, not for task={data.kind.name}; choose attack=none"
        )
    recipes, _, wanted = options(attack)
    whole(1, "attack.processes", attack.processes)
    _device(attack.device)
    for recipe in recipes.values():
        resources.check(wanted, recipe.needs, data)


def _part(number: int, count: int, threads: int, victim: Path, plain: Any, folder: Path) -> None:
    torch.set_num_threads(threads)
    for each in prepare(victim, plain, folder):
        each.work(number + 1, count)


def _device(name: str) -> torch.device:
    """The device of this name; `auto` is the first accelerator, if there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"attack.device={name}: not here: {str(error).splitlines()[0]}") from error
    return torch.device(name)
