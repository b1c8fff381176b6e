"""Jobs: the runs of a sweep, each in a folder that it has again when the sweep goes on."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeAlias

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from lit_adv.sweeps import outcome
from lit_adv.sweeps.trial import Trial

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
        trial: of a search that prunes; None = it is none.
    """

    overrides: tuple[str, ...]
    folder: Path
    label: str = ""
    trial: Trial | None = None

    @property
    def state(self) -> outcome.State:
        """How it stands."""
        return outcome.state(self.folder)

    def command(self, sweep: Path) -> list[str]:
        """What a launcher is given."""
        return [*self.overrides, f"hydra.sweep.subdir='{self.folder.relative_to(sweep)}'"]


def jobs(points: Sequence[Sequence[str]], config: DictConfig, compose: Compose) -> list[Job]:
    """The jobs of these points, in their order, none twice: see `of_each`."""
    return different(of_each(points, config, compose))


def of_each(
    points: Sequence[Sequence[str]],
    config: DictConfig,
    compose: Compose,
    numbers: Sequence[int] | None = None,
) -> list[Job]:
    """The job of each of these points.

    A job is known by its composed configuration: it has the folder in whose `.hydra/config.yaml`
    that stands, or else the first number from its own on that no run has. So a sweep that goes on,
    and one that has grown by a value, keeps what is done; nothing that is done is ever written
    over. Points that are other words for the same run have the same folder.

    Args:
        points: overrides of each.
        config: of the sweep, with `hydra`.
        compose: overrides -> configuration, with `hydra`.
        numbers: of the points; None = as they stand, and folders are numbered without gaps.

    Raises:
        ValueError: by names of the user's own, two jobs would have one folder, or one that holds
            another run.
    """
    sweep = Path(config.hydra.sweep.dir)
    there = {_composed(path): path for path in sorted(_runs(sweep))}
    there = {text: path for text, path in there.items() if text.endswith("\n")}  # not cut off
    used = {path.name for path in there.values()}
    numbered = OmegaConf.to_container(config.hydra.sweep)["subdir"] == NUMBERED  # pyright: ignore
    taken: dict[str, Path] = {}
    found: list[Job] = []
    labels = distinct(points)
    for place, (point, label) in enumerate(zip(points, labels, strict=True)):
        composed = compose(list(point))
        text = task(composed)
        if text not in taken and not numbered:
            folder = _named(sweep, composed, numbers[place] if numbers else place)
            _check(folder, there.get(text), taken)
            taken[text] = folder
        elif text not in taken:
            taken[text] = there.get(text) or _free(sweep, used, numbers[place] if numbers else 0)
            used.add(taken[text].name)
        found.append(Job(tuple(point), taken[text], label))
    return found


def task(composed: DictConfig) -> str:
    """The configuration as a run's `.hydra/config.yaml` has it."""
    own = composed.copy()
    with open_dict(own):
        own.pop("hydra", None)
    return OmegaConf.to_yaml(own)


def different(jobs: Iterable[Job]) -> list[Job]:
    """The first job of every folder: the others only have other words for it."""
    found: dict[Path, Job] = {}
    for job in jobs:
        found.setdefault(job.folder, job)
    return list(found.values())


def distinct(points: Sequence[Sequence[str]]) -> list[str]:
    """Of every point what is not the same in all.

    >>> distinct([["model=tiny", "flood.b=0.1"], ["model=tiny", "flood.b=0.2"]])
    ['flood.b=0.1', 'flood.b=0.2']
    """
    common = set[str]().union(*points).intersection(*points) if len(points) > 1 else set[str]()
    return [" ".join(line for line in point if line not in common) for point in points]


def _free(sweep: Path, used: Container[str], first: int) -> Path:
    """Where no run is, not even one that failed before it wrote its configuration."""
    names = (str(number) for number in count(first))
    free = (sweep / name for name in names if name not in used)
    return next(path for path in free if not (path / "config.yaml").exists())


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
