"""Configurations: where they live, and whether every key of them binds to its class's signature."""

import inspect
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}
GIVEN_IN_CODE = {"task", "descent", "splits", "groups", "params"}


def folder() -> Path:
    """The configuration folder: inside the installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def check(config: DictConfig) -> None:
    """Bind every node with a `_target_` to the signature it will be called with.

    Raises:
        ValueError: a value is missing, a key is unknown or a value has another type; the line names
            the key, the value and the remedy.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]}: needs a value; set {missing[0]}=...")
    for path, node in _targets(config, ""):
        _bind(path, node)


def _targets(node: DictConfig, path: str) -> Iterator[tuple[str, DictConfig]]:
    if "_target_" in node:
        yield path, node
    for key, child in node.items_ex(resolve=False):
        if isinstance(child, DictConfig):
            yield from _targets(child, f"{path}.{key}" if path else str(key))


def _bind(path: str, node: DictConfig) -> None:
    target = node["_target_"]
    try:
        called = get_object(target)
    except Exception as error:
        raise ValueError(f"{path}._target_={target}: cannot be imported: {error}") from error
    parameters = inspect.signature(called).parameters
    hints = signature(called) if target.startswith("lit_adv.") else {}
    if not hints and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return  # the class checks its options itself
    known = hints or parameters

    for key in node:
        if key in HYDRA_KEYS:
            continue
        name = f"{path}.{key}"
        if key not in known:
            there = [k for k in known if k not in GIVEN_IN_CODE]
            near = get_close_matches(str(key), there, n=1)
            hint = f"did you mean {path}.{near[0]}?" if near else f"it has {', '.join(there)}"
            raise ValueError(f"{name}={node[key]}: unknown key of {called.__name__}; {hint}")
        if key in hints and not _fits(node[key], hints[key]):
            wanted = _in_words(hints[key])
            raise ValueError(f"{name}={node[key]}: needs to be {wanted}")


def signature(called: Callable[..., Any]) -> dict[str, Any]:
    """Names and types of what a class or function of this library takes, its options unpacked."""
    # The hints of a class stand in its __init__, those of a dataclass in its bases too.
    hints = get_type_hints(called.__init__ if inspect.isclass(called) else called)
    taken: dict[str, Any] = {}
    for name, parameter in inspect.signature(called).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            options = get_args(hints.get(name))
            if not options:
                return {}  # the class checks them itself
            taken |= get_type_hints(options[0])
        else:
            taken[name] = hints.get(name, Any)
    return taken


def _fits(value: Any, hint: Any) -> bool:
    """Whether a configuration's value has the type that a signature asks for.

    >>> _fits(1, float), _fits(1.5, int), _fits(True, int), _fits(None, float | None)
    (True, False, False, True)
    """
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if _is_union(hint):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    return True  # structures: their own constructors check them


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if _is_union(hint):
        return " or ".join(_in_words(part) for part in get_args(hint))
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    return "null" if hint is type(None) else names.get(hint, str(hint))


def _is_union(hint: Any) -> bool:
    # `int | None` and `Optional[int]` have different origins before Python 3.14.
    return get_origin(hint) is Union or type(hint).__name__ == "UnionType"
