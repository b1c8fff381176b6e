"""Storages of studies: a journal file, or any database that Optuna knows."""

from collections.abc import Mapping

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from lit_adv.sweeps.objective import Direction
from lit_adv.sweeps.trial import Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(place: str) -> str | BaseStorage:
    """Where studies are kept, as Optuna takes it.

    Args:
        place: URL of a database, or a journal file.
    """
    return place if "://" in place else JournalStorage(JournalFileBackend(place))


def begun(
    place: str, name: str, direction: Direction, common: Mapping[str, str | None]
) -> optuna.Study:
    """The study of this name, begun here if there is none.

    Args:
        place: see `storage`.
        name: of the study.
        direction: in which its values are better.
        common: what is said of all its trials.

    Raises:
        ValueError: the storage cannot be used, or the study's trials have other things in common.
    """
    try:
        study = optuna.create_study(
            storage=storage(place), study_name=name, direction=direction, load_if_exists=True
        )
    except Exception as error:  # whatever a database's driver raises, or that there is none
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"hydra.sweeper.storage={place}: cannot be used: {said}") from error
    now = {**common, "direction": direction}
    before = {**study.user_attrs.get("search", common), "direction": study.direction.name.lower()}
    for key in sorted(before.keys() | now.keys()):
        there, here = before.get(key, "nothing"), now.get(key, "nothing")
        if there != here:
            raise ValueError(
                f"hydra.sweep.dir: the search there has {key}={there}, this one {key}={here}, so "
                "that their values are not comparable; ask for the same, or take another folder "
                "(or, with a storage that is shared, another hydra.sweeper.study_name)"
            )
    study.set_user_attr("search", now)
    return study


def joined(trial: Trial) -> optuna.Study:
    """The study that a run is a trial of, with what decides whether it ends early.

    Raises:
        KeyError: there is no such study.
    """
    return optuna.load_study(
        storage=storage(trial.storage),
        study_name=trial.study,
        sampler=RandomSampler(),  # others note down what they would sample
        pruner=MedianPruner(n_startup_trials=trial.pruning.startup_trials),
    )


def live(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A trial that has begun, to be gone on with: `ask` only begins new ones."""
    return optuna.Trial(study, trial._trial_id)
