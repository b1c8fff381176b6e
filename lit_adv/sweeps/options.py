"""Options of a search, hydra.sweeper with hydra/sweeper=optuna."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lit_adv.ranges import one_of, whole
from lit_adv.sweeps.objective import Direction
from lit_adv.sweeps.study import SAMPLERS
from lit_adv.sweeps.trial import Pruning

NODE = "hydra.sweeper"


@dataclass(frozen=True)
class Options:
    """How is searched; conf/hydra/sweeper/optuna.yaml says what each option means.

    Raises:
        ValueError: an option lies outside its range.
    """

    n_trials: int
    n_jobs: int | None
    seed: int
    sampler: str
    direction: Direction | None
    storage: str | None
    study_name: str | None
    pruning: Pruning | None

    def __post_init__(self) -> None:
        whole(1, f"{NODE}.n_trials", self.n_trials)
        whole(0, f"{NODE}.seed", self.seed)
        one_of(tuple(SAMPLERS), f"{NODE}.sampler", self.sampler)
        if self.n_jobs is not None:
            whole(1, f"{NODE}.n_jobs", self.n_jobs)
        if self.direction is not None:
            one_of(("minimize", "maximize"), f"{NODE}.direction", self.direction)
        if self.pruning is not None:
            whole(1, f"{NODE}.pruning.startup_trials", self.pruning.startup_trials)
            whole(0, f"{NODE}.pruning.warmup_epochs", self.pruning.warmup_epochs)


def options(given: Mapping[str, Any]) -> Options:
    """The options that a configuration gives.

    Raises:
        ValueError: there is no such option, or it lies outside its range.
    """
    found = dict(given)
    if found.get("pruning") is not None:
        found["pruning"] = Pruning(**_known(Pruning, f"{NODE}.pruning", found["pruning"]))
    return Options(**_known(Options, NODE, found))


def _known(kind: type, node: str, given: Mapping[str, Any]) -> dict[str, Any]:
    there = [field.name for field in fields(kind)]
    for key, value in given.items():
        if key not in there:
            raise ValueError(
                f"{node}.{key}={value}: no option of a search; it has {', '.join(there)}"
            )
    return {str(key): value for key, value in given.items()}
