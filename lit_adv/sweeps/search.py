"""A search: Optuna asks for trials, a sweep runs them, their results are told."""

from collections.abc import Sequence
from dataclasses import replace

import optuna
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from lit_adv.reports.settings import PLACES, within
from lit_adv.sweeps import launchers, storage, trial
from lit_adv.sweeps.jobs import Job
from lit_adv.sweeps.objective import Objective, objective
from lit_adv.sweeps.options import Options
from lit_adv.sweeps.progress import Progress
from lit_adv.sweeps.space import Space
from lit_adv.sweeps.study import Study
from lit_adv.sweeps.sweep import Sweep

JOURNAL = "study.journal"
"""The storage of a sweep that names no other, in its folder."""


class Search:
    """The trials of one study, as many as are asked for in all.

    Args:
        sweep: whose folder has the runs.
        space: what may be tried.
        options: how.
    """

    def __init__(self, sweep: Sweep, space: Space, options: Options) -> None:
        self._sweep, self._space, self._options = sweep, space, options
        folder = sweep.folder.resolve()
        self._place = options.storage or str(folder / JOURNAL)
        # A study in the sweep's folder is its only one, and stays so where the folder is moved.
        self._name = options.study_name or (str(folder) if options.storage else "search")

    def run(self) -> None:
        """Run the trials that are missing: first those that were at work when it was broken off.

        Raises:
            ValueError: see `storage.begun` and `Study`.
        """
        config = self._sweep.compose(list(self._space.fixed))
        goal = objective(config, self._options.direction)
        self._check(config, goal)
        with self._sweep.begun():
            study = self._study(goal)
            ended = [each for each in study.trials if each.state.is_finished()]
            done = [self._ended(each) for each in ended]
            with self._sweep.progress(self._options.n_trials, done, goal.metric) as progress:
                self._work(study, study.open(), goal, progress)
                while (left := self._options.n_trials - len(study.trials)) > 0:
                    asked = [study.ask() for _ in range(min(left, self._at_once))]
                    self._work(study, asked, goal, progress)
            if best := study.best:
                values = " ".join(self._space.own(best.params))
                folder = self._ended(best).folder
                print(f"best of {len(study.trials)} trials: {best.value:.4f} in {folder}: {values}")

    @property
    def _at_once(self) -> int:
        return self._options.n_jobs or launchers.at_once(self._sweep.launcher)

    def _study(self, goal: Objective) -> Study:
        said = (line.partition("=") for line in self._space.fixed)
        settings = {key.lstrip("+~"): value for key, _, value in said}
        common = {k: value for k, value in settings.items() if not within(k, (*PLACES, "sweep"))}
        owner = {"folder": str(self._sweep.folder.resolve())} if self._options.storage else {}
        common = {**common, **owner, "metric": goal.metric}
        study = storage.begun(self._place, self._name, goal.direction, common)
        return Study(study, self._space.searched, self._options.sampler, self._options.seed)

    def _work(
        self, study: Study, trials: Sequence[optuna.Trial], goal: Objective, progress: Progress
    ) -> None:
        """Run these trials at once and tell the study their ends; one without stays open."""
        points = [self._space.point(each.params) for each in trials]
        found = self._sweep.jobs(points, [each.number for each in trials])
        jobs = [self._told(job, each, goal) for job, each in zip(found, trials, strict=True)]
        there = [job for job in jobs if job.state != "missing"]
        progress.watch(there)
        self._sweep.launch([job for job in jobs if job not in there], progress)
        for each, job in zip(trials, jobs, strict=True):
            state, value = goal.outcome(job.folder)
            if state != TrialState.RUNNING:
                study.tell(each.number, state, value)
                trial.note(job.folder, None)

    def _told(self, job: Job, asked: optuna.Trial, goal: Objective) -> Job:
        """The job, with what its run has to know of its trial."""
        asked.set_user_attr("folder", str(job.folder.relative_to(self._sweep.folder)))
        place = None
        if self._options.pruning is not None:
            given = (self._place, self._name, asked.number, goal.metric, self._options.pruning)
            place = trial.Trial(*given)
        return replace(job, label=self._space.label(asked.params), trial=place)

    def _ended(self, ended: FrozenTrial) -> Job:
        folder = self._sweep.folder / ended.user_attrs.get("folder", str(ended.number))
        return Job((), folder, self._space.label(ended.params))

    def _check(self, config: DictConfig, goal: Objective) -> None:
        split, _, name = (goal.metric or "").partition("/")
        measured = [node.get("name") for node in config.callbacks.values() if "recipe" in node]
        if self._options.pruning is not None and split == "attack" and name not in measured:
            raise ValueError(
                f"hydra.sweeper.pruning: {goal.metric} is measured only when training is over; "
                "hydra.sweeper.pruning=null"
            )
