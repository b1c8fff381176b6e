"""Settings: what somebody's network is trained with, from names, classes or recipes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lit_adv import config
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.flood.flood import Flood
from lit_adv.masks.mask import Mask
from lit_adv.proximal.proximal import Proximal
from lit_adv.recipe import Recipe
from lit_adv.updates.update import Update

PIECES = {"flood": Flood, "update": Update, "mask": Mask, "proximal": Proximal}
SPOKEN = {"flooding": "fixed", "plain": "finetune"}
"""Names that papers and people use, and those of our files."""


@dataclass(frozen=True)
class Settings:
    """A method, its pieces, and what they have to know of the network; see `lit_adv.adopt`."""

    recipe: Recipe
    at: str | None = None
    tokens: Callable[[Any], Tensor] | None = None
    logits: str | Callable[[Any], Tensor] | None = None
    distance: Callable[[Tensor, Tensor], Tensor] | None = None
    losses: Callable[[Any], Tensor] | None = None
    valid: tuple[Any, Any] | None = None


def settings(
    method: str | type[FineTuner] | FineTuner | Recipe = "finetune",
    *,
    at: str | None = None,
    tokens: Callable[[Any], Tensor] | None = None,
    logits: str | Callable[[Any], Tensor] | None = None,
    distance: Callable[[Tensor, Tensor], Tensor] | None = None,
    losses: Callable[[Any], Tensor] | None = None,
    valid: tuple[Any, Any] | None = None,
    flood: Flood | str | None = None,
    update: Update | str | None = None,
    mask: Mask | str | None = None,
    proximal: Proximal | str | None = None,
    **options: Any,
) -> Settings:
    """The settings that these words mean.

    Args:
        method: name, class, or class with options (`FGM(radius=0.5)`). It may be a piece's (`sam`,
            `flooding`, `SAM(0.1)`, ...): then it is that piece with plain fine-tuning.
        at: see Place.
        tokens: see Place.
        logits: see Borrowed.
        distance: see Borrowed.
        losses: from a batch to the loss of each example, [batch]; it stands in for the
            `training_step` of an adopted module, which then is not called.
        valid: see Place.
        flood: one, or the name of one, with its defaults.
        update: likewise.
        mask: likewise.
        proximal: likewise.
        options: of the method, or of the piece that it names.

    Raises:
        ValueError: there is no such method, piece or option.
    """
    given = {"flood": flood, "update": update, "mask": mask, "proximal": proximal}
    pieces = {k: _piece(k, v) if isinstance(v, str) else v for k, v in given.items() if v}
    recipe: Any = method
    if isinstance(method, str):
        group, name = _found(method)
        if group == "method":
            recipe = _recipe(name, options)
        else:
            pieces[group] = _built(group, name, options)
            recipe = _recipe("finetune", {})
    elif isinstance(method, type) and issubclass(method, FineTuner):
        recipe = Recipe(method, **options)
    elif group := _group(method):
        pieces[group] = method(**options) if isinstance(method, type) else method
        recipe = _recipe("finetune", {})
    elif not isinstance(method, Recipe):
        raise ValueError(
            f"method={type(method).__name__}: has a task of its own; give its name, its class, or "
            f"{type(method).__name__}(...) without a task"
        )
    elif options:
        recipe = Recipe(method.method, method.descent, **{**method.options, **options})
    if pieces:
        descent = replace(recipe.descent or Descent(), **pieces)
        recipe = Recipe(recipe.method, descent, **recipe.options)
    return Settings(recipe, at, tokens, logits, distance, losses, valid)


def _found(name: str) -> tuple[str, str]:
    """Group and file that this name means."""
    file, known = SPOKEN.get(name, name), []
    for group in ("method", *PIECES):
        folder = config.folder() / group
        if (folder / f"{file}.yaml").is_file():
            return group, file
        known += [path.stem for path in folder.glob("*.yaml")]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(set(known)))}"
    raise ValueError(f"method={name}: no such method; {hint}")


def _group(given: Any) -> str | None:
    """Which kind of piece this is, or makes."""
    kind = given if isinstance(given, type) else type(given)
    return next((group for group, base in PIECES.items() if issubclass(kind, base)), None)


def _piece(group: str, name: str) -> Any:
    if not (config.folder() / group / f"{SPOKEN.get(name, name)}.yaml").is_file():
        known = sorted(path.stem for path in (config.folder() / group).glob("*.yaml"))
        raise ValueError(f"{group}={name}: there is no such; there are {', '.join(known)}")
    return _built(group, SPOKEN.get(name, name), {})


def _recipe(name: str, options: dict[str, Any]) -> Recipe:
    target, values = _read("method", name, options)
    return Recipe(target, **values)


def _built(group: str, name: str, options: dict[str, Any]) -> Any:
    target, values = _read(group, name, options)
    known = config.signature(target)
    for option in options:
        if option not in known:
            raise ValueError(f"{option}: {name} has no such option; it has {', '.join(known)}")
    return target(**values)


def _read(group: str, name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Class and options of a configuration; what depends on other files is left to the class."""
    node = OmegaConf.load(config.folder() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    values = dict(options)
    for key in (key for key in map(str, node) if key not in options and not key.startswith("_")):
        if OmegaConf.is_missing(node, key):
            raise ValueError(f"{group}={name}: needs {key}=...; give an object that has it")
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_dict(node[key]):
            values[key] = node[key]
    return get_object(node["_target_"]), values
