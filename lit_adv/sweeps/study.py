"""A study: what a search has tried, and what it tries next."""

from collections.abc import Mapping

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from lit_adv.sweeps.storage import live

SAMPLERS: dict[str, type[BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler}


class Study:
    """Optuna's, gone on with in the same way wherever it was broken off.

    Args:
        study: with the trials so far.
        searched: key -> the values it may have.
        sampler: one of SAMPLERS.
        seed: of the sampler.

    Raises:
        ValueError: the study has values of another kind, which Optuna cannot compare.
    """

    def __init__(
        self,
        study: optuna.Study,
        searched: Mapping[str, BaseDistribution],
        sampler: str,
        seed: int,
    ) -> None:
        self._study, self._searched = study, searched
        self._sampler, self._seed = SAMPLERS[sampler], seed
        for trial in self.trials:
            self._check(trial)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All that have begun."""
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if trial.state != TrialState.WAITING]

    @property
    def best(self) -> FrozenTrial | None:
        """Of those that are complete."""
        complete = any(trial.state == TrialState.COMPLETE for trial in self.trials)
        return self._study.best_trial if complete else None

    def ask(self) -> optuna.Trial:
        """A new trial with its values."""
        self._reseed(len(self._study.get_trials(deepcopy=False)))
        return self._filled(self._study.ask())

    def open(self) -> list[optuna.Trial]:
        """Trials without an end: they were at work when the search was broken off."""
        there = [trial for trial in self.trials if trial.state == TrialState.RUNNING]
        return [self._reopened(trial) for trial in there]

    def tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        """The end of a trial."""
        self._study.tell(number, value, state)

    def _check(self, trial: FrozenTrial) -> None:
        for key in self._searched.keys() & trial.distributions.keys():
            before, now = trial.distributions[key], self._searched[key]
            try:
                check_distribution_compatibility(before, now)
            except ValueError as error:
                raise ValueError(
                    f"{key}: the trials so far are of {before}, this search is of {now}, which "
                    "Optuna cannot compare; take another hydra.sweep.dir or ask for the same"
                ) from error

    def _reopened(self, trial: FrozenTrial) -> optuna.Trial:
        self._reseed(trial.number)  # it may have been broken off before it had its values
        return self._filled(live(self._study, trial))

    def _reseed(self, number: int) -> None:
        """Every trial has a sampler of its own, so that none depends on who sampled before it."""
        (seed,) = np.random.SeedSequence((self._seed, number)).generate_state(1)
        self._study.sampler = self._sampler(seed=int(seed))  # pyright: ignore[reportCallIssue]

    def _filled(self, trial: optuna.Trial) -> optuna.Trial:
        for key, values in self._searched.items():
            if isinstance(values, CategoricalDistribution):
                trial.suggest_categorical(key, values.choices)
            elif isinstance(values, IntDistribution):
                trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
            else:
                assert isinstance(values, FloatDistribution)
                trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)
        return trial
