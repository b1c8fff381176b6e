"""A sweep in its folder: locked, gone on with, reported, and ended by a true exit code."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from lit_adv.sweeps import launchers, lock
from lit_adv.sweeps.jobs import Job, different, jobs, of_each
from lit_adv.sweeps.launching import launch
from lit_adv.sweeps.progress import Progress


class Sweep:
    """The runs of one `hydra.sweep.dir`.

    Args:
        context: Hydra's.
        config: of the sweep.
        launcher: set up.
    """

    def __init__(self, context: HydraContext, config: DictConfig, launcher: Launcher) -> None:
        self._context, self._config, self.launcher = context, config, launcher
        self.folder = Path(config.hydra.sweep.dir)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """The folder is this process's; in the end the sweep's callbacks write its report.

        Raises:
            ValueError: another sweep is at work in the folder.
            SystemExit: some runs have failed.
        """
        with lock.sole(self.folder, "a sweep"):
            OmegaConf.save(self._config, self.folder / "multirun.yaml")
            self.failed = 0
            yield
            if self.failed:
                # Hydra itself would end with 0, whatever the runs have come to.
                self._context.callbacks.on_multirun_end(config=self._config)
                print(f"{self.failed} runs failed; the report says why", file=sys.stderr)
                sys.exit(1)

    def run(self, points: Sequence[Sequence[str]], size: int | None = None) -> None:
        """Run what is missing of these points.

        Args:
            points: overrides of each.
            size: most runs at once; None = as many as the launcher sees fit.
        """
        found = jobs(points, self._config, self.compose)
        done = [job for job in found if job.state == "finished"]
        with self.progress(len(found), done) as progress:
            self.launch([job for job in found if job not in done], progress, size)

    def jobs(self, points: Sequence[Sequence[str]], numbers: Sequence[int]) -> list[Job]:
        """The job of each of these points; see `jobs.of_each`."""
        return of_each(points, self._config, self.compose, numbers)

    def progress(self, count: int, done: Sequence[Job], metric: str | None = None) -> Progress:
        """Say what there is to do; returns what tells of the runs that end from now on.

        Args:
            count: of all runs.
            done: those that there is nothing to do for.
            metric: that the best is told by; None = the runs' own.
        """
        print(
            f"sweep of {count} runs in {self.folder}, {len(done)} of them done; to go on after an "
            f"end of any kind: the same command with hydra.sweep.dir={self.folder}",
            file=sys.stderr,
        )
        return Progress(count, done, metric)

    def launch(self, jobs: Sequence[Job], progress: Progress, size: int | None = None) -> None:
        """Run these jobs, whatever there is of them."""
        progress.watch(jobs)
        most = size or launchers.most(self.launcher)
        launch(self.launcher, different(jobs), self.folder, most)
        self.failed += sum(job.state in ("failed", "missing") for job in jobs)

    def compose(self, overrides: list[str]) -> DictConfig:
        """The configuration of a run with these overrides, with `hydra`."""
        return self._context.config_loader.load_sweep_config(self._config, overrides)
