"""A sweep in its folder: locked, gone on with, reported, and ended by a true exit code."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from lit_adv.sweeps import launchers, lock
from lit_adv.sweeps.jobs import Job, jobs
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
        self._context, self._config, self._launcher = context, config, launcher
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

    def jobs(self, points: Sequence[Sequence[str]]) -> list[Job]:
        """The jobs of these points, each in its folder."""
        return jobs(points, self._config, self._compose)

    def run(self, points: Sequence[Sequence[str]], size: int | None = None) -> list[Job]:
        """Run what is missing of these points; returns all their jobs.

        Args:
            points: overrides of each.
            size: most runs at once; None = as many as the launcher sees fit.
        """
        found = self.jobs(points)
        missing = [job for job in found if job.state != "finished"]
        done = len(found) - len(missing)
        print(
            f"sweep of {len(found)} runs in {self.folder}, {done} of them done; to go on after an "
            f"end of any kind: the same command with hydra.sweep.dir={self.folder}",
            file=sys.stderr,
        )
        with Progress(found):
            most = size or launchers.most(self._launcher)
            launch(self._launcher, missing, self.folder, most)
        self.failed += sum(job.state == "failed" for job in found)
        return found

    def _compose(self, overrides: list[str]) -> DictConfig:
        return self._context.config_loader.load_sweep_config(self._config, overrides)
