"""Trials do not depend on where a search was broken off."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from searches import what

from lit_adv.sweeps.storage import begun, storage
from lit_adv.sweeps.study import Study

SEARCHED = {
    "b": FloatDistribution(0, 0.5),
    "rate": FloatDistribution(1e-4, 1e-2, log=True),
    "steps": IntDistribution(1, 9, step=2),
    "method": CategoricalDistribution(("fgm", "pgd")),
}
TRIALS = 14
"""More than the ten that the sampler takes at random."""


def joined(folder: Path, sampler: str = "tpe", seed: int = 0) -> Study:
    study = begun(str(folder / "journal"), "search", "maximize", {"metric": "val/accuracy"})
    return Study(study, SEARCHED, sampler, seed)


def end(study: Study, trial: optuna.Trial) -> None:
    """What a run comes to: known from its values; some fail."""
    values = trial.params
    if values["b"] > 0.45:
        study.tell(trial.number, TrialState.FAIL)
    else:
        value = -((values["b"] - 0.2) ** 2) + values["rate"] + (values["method"] == "pgd")
        study.tell(trial.number, TrialState.COMPLETE, value)


def go_on(folder: Path, until: int, **options: Any) -> list[tuple[Any, ...]]:
    study = joined(folder, **options)
    for trial in study.open():
        end(study, trial)
    while len(study.trials) < until:
        end(study, study.ask())
    return [what(trial) for trial in study.trials]


def test_broken_off_anywhere_and_gone_on_with_it_is_the_same_search(tmp_path: Path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = go_on(tmp_path / "whole", TRIALS)
    broken = tmp_path / "broken"
    go_on(broken, 2)
    joined(broken).ask()  # at work
    go_on(broken, 11)
    joined(broken).ask()  # after ten the sampler looks at what there is, open trials too
    go_on(broken, 13)
    # Begun, without its values yet.
    optuna.load_study(study_name="search", storage=storage(str(broken / "journal"))).ask()
    assert go_on(broken, TRIALS) == whole
    assert {state for _, state, *_ in whole} == {"COMPLETE", "FAIL"}


def test_seeds_are_other_searches_and_neighbouring_ones_share_no_trial(tmp_path: Path):
    found = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        trials = go_on(tmp_path / str(seed), 5, sampler="random", seed=seed)
        found.append({params["b"] for *_, params in trials})
    assert len(found[0] | found[1]) == 10


def test_a_study_of_something_else_is_refused(tmp_path: Path):
    joined(tmp_path).ask()
    place = str(tmp_path / "journal")
    with pytest.raises(ValueError, match="has metric=val/accuracy, this one metric=val/loss"):
        begun(place, "search", "maximize", {"metric": "val/loss"})
    with pytest.raises(ValueError, match="has direction=maximize, this one direction=minimize"):
        begun(place, "search", "minimize", {"metric": "val/accuracy"})
    with pytest.raises(ValueError, match="has data=nothing, this one data=sst2"):
        begun(place, "search", "maximize", {"metric": "val/accuracy", "data": "sst2"})
    other = {"method": CategoricalDistribution(("fgm", "smart"))}
    study = begun(place, "search", "maximize", {"metric": "val/accuracy"})
    with pytest.raises(ValueError, match="method: the trials so far are of .*'pgd'"):
        Study(study, other, "tpe", 0)


def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="hydra.sweeper.storage=nosuch://x: cannot be used"):
        begun("nosuch://x", "search", "maximize", {})
