"""Launching: whatever becomes of single runs, the others run."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.plugins.launcher import Launcher

from lit_adv import failure
from lit_adv.sweeps import trial
from lit_adv.sweeps.jobs import Job


def launch(launcher: Launcher, jobs: Sequence[Job], sweep: Path, size: int | None = None) -> None:
    """Run these jobs.

    Args:
        launcher: set up.
        jobs: to be run.
        sweep: folder of the sweep.
        size: most jobs at once; None = as many as the launcher sees fit.

    Raises:
        Exception: the launcher itself does not work.
    """
    for job in jobs:
        failure.clear(job.folder)
        trial.note(job.folder, job.trial)
    size = size or max(len(jobs), 1)
    for start in range(0, len(jobs), size):
        _launch(launcher, jobs[start : start + size], sweep)


def _launch(launcher: Launcher, jobs: Sequence[Job], sweep: Path) -> None:
    """Run these jobs at once.

    A worker that dies (of memory, say) takes others' work with it. Those that had begun then run
    again one by one, and one that dies alone has failed.
    """
    if not jobs:
        return
    name = jobs[0].folder.name
    first = int(name) if name.isdecimal() else 0  # in the launcher's own lines, nothing else
    try:
        launcher.launch([job.command(sweep) for job in jobs], initial_job_idx=first)
    except Exception as error:
        begun = [job for job in jobs if job.state == "missing" and (job.folder / ".hydra").is_dir()]
        if not begun:
            raise
        if len(jobs) == 1:
            said = " ".join(str(error).split())[:300]
            reason = f"its process ended, perhaps for want of memory ({said})"
            failure.write(jobs[0].folder, error, reason)
            return
        print(f"a worker has died; runs are taken up one by one: {error!r:.200}", file=sys.stderr)
        for job in begun:
            _launch(launcher, [job], sweep)
        _launch(launcher, [job for job in jobs if job.state == "missing"], sweep)
