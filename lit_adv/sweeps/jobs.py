"""Jobs: the runs of a sweep, each in a folder that it has again when the sweep goes on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeAlias

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from lit_adv.sweeps import outcome

Compose: TypeAlias = Callable[[list[str]], DictConfig]
NUMBERED = "${hydra.job.num}"
"""Hydra's own names of folders."""


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        overrides: of the command line that it would be alone.
        folder: its own.
        label: its overrides, as far as other jobs have others.
    """

    overrides: tuple[str, ...]
    folder: Path
    label: str = ""

    @property
    def state(self) -> outcome.State:
        """How it stands."""
        return outcome.state(self.folder)

    def command(self, sweep: Path) -> list[str]:
        """What a launcher is given."""
        return [*self.overrides, f"hydra.sweep.subdir='{self.folder.relative_to(sweep)}'"]


def jobs(points: Sequence[Sequence[str]], config: DictConfig, compose: Compose) -> list[Job]:
    """The jobs of these points, in their order.

    A job is known by its composed configuration: it has the folder in whose `.hydra/config.yaml`
    that stands, or else the first number that no run has. So a sweep that goes on, and one that has
    grown by a value, keeps what is done; nothing that is done is ever written over.

    Args:
        points: overrides of each.
        config: of the sweep, with `hydra`.
        compose: overrides -> configuration, with `hydra`.

    Raises:
        ValueError: by names of the user's own, two jobs would have one folder, or one that holds
            another run.
    """
    sweep = Path(config.hydra.sweep.dir)
    there = {_composed(path): path for path in sorted(_runs(sweep))}
    free = (sweep / str(n) for n in count() if not (sweep / str(n) / "config.yaml").exists())
    numbered = OmegaConf.to_container(config.hydra.sweep)["subdir"] == NUMBERED  # pyright: ignore
    taken: dict[str, Path] = {}
    found: list[Job] = []
    labels = distinct(points)
    for number, (point, label) in enumerate(zip(points, labels, strict=True)):
        composed = compose(list(point))
        text = task(composed)
        if text in taken:  # `flood=none flood.b=...`: other words for the same run
            continue
        if not numbered:
            folder = _named(sweep, composed, number)
            _check(folder, there.get(text), taken)
        else:
            folder = there.get(text) or next(free)
        taken[text] = folder
        found.append(Job(tuple(point), folder, label))
    return found


def task(composed: DictConfig) -> str:
    """The configuration as a run's `.hydra/config.yaml` has it."""
    own = composed.copy()
    with open_dict(own):
        own.pop("hydra", None)
    return OmegaConf.to_yaml(own)


def distinct(points: Sequence[Sequence[str]]) -> list[str]:
    """Of every point what is not the same in all.

    >>> distinct([["model=tiny", "flood.b=0.1"], ["model=tiny", "flood.b=0.2"]])
    ['flood.b=0.1', 'flood.b=0.2']
    """
    common = set[str]().union(*points).intersection(*points) if len(points) > 1 else set[str]()
    return [" ".join(line for line in point if line not in common) for point in points]


def _named(sweep: Path, composed: DictConfig, number: int) -> Path:
    with open_dict(composed):
        composed.hydra.job.num = number
        composed.hydra.job.id = str(number)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    try:
        return sweep / str(composed.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before


def _check(folder: Path, known: Path | None, taken: dict[str, Path]) -> None:
    if folder in taken.values():
        raise ValueError(f"hydra.sweep.subdir: two runs would have the folder {folder}")
    if known != folder and (folder / "config.yaml").exists():
        raise ValueError(
            f"{folder}: holds a run of another configuration; take another hydra.sweep.dir"
        )


def _runs(sweep: Path) -> Iterable[Path]:
    return (path.parents[1] for path in sweep.glob("**/.hydra/config.yaml"))


def _composed(run: Path) -> str:
    return (run / ".hydra" / "config.yaml").read_text(encoding="utf-8")
