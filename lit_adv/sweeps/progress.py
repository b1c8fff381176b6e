"""A line for every run that ends: which of how many, what came out, the best so far, time left."""

import sys
import time
from collections.abc import Sequence
from threading import Event, Thread
from types import TracebackType

from lit_adv import better
from lit_adv.reports import metric as metrics
from lit_adv.reports.reading import read
from lit_adv.reports.run import Run
from lit_adv.sweeps.jobs import Job


class Progress:
    """Watches the folders of jobs, wherever they run, while its block runs.

    Args:
        jobs: all of the sweep; those that are finished at the start are only counted.
        every: seconds between two looks.
    """

    def __init__(self, jobs: Sequence[Job], every: float = 1.0) -> None:
        self._jobs, self._every = jobs, every
        self._ended: dict[Job, Run] = {}
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._look(quietly=True)
        self._before, self._start = len(self._ended), time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._look()

    def _look(self, quietly: bool = False) -> None:
        for job in self._jobs:
            if job in self._ended or (state := job.state) == "missing":
                continue
            if quietly and state == "failed":
                continue  # it runs again
            self._ended[job] = read(job.folder, job.label or job.folder.name)
            if not quietly:
                print(self._line(job), file=sys.stderr, flush=True)

    def _line(self, job: Job) -> str:
        done = len(self._ended)
        spent = time.monotonic() - self._start
        left = spent / (done - self._before) * (len(self._jobs) - done)
        return line(self._ended[job], list(self._ended.values()), len(self._jobs), left)


def line(run: Run, ended: Sequence[Run], count: int, left: float) -> str:
    """What is said of a run that has ended.

    Args:
        run: it.
        ended: all that have, it among them.
        count: of all runs of the sweep.
        left: seconds.
    """
    told = run.reason if run.state == "failed" else "finished"
    parts = [told]
    metric = metrics.choose([each for each in ended if each.state == "ok"], None).chosen
    known = [each for each in ended if metric in each.metrics]
    if metric is not None and known:
        choose = min if better.less(metric) else max
        best = choose(known, key=lambda each: each.metrics[metric])
        if run.state == "ok" and metric in run.metrics:
            parts = [f"{metric} {run.metrics[metric]:.4f}"]
        parts.append(f"best {best.metrics[metric]:.4f} ({best.name})")
    if len(ended) < count:
        parts.append(f"{duration(left)} left")
    width = len(str(count))
    return f"[{len(ended):>{width}}/{count}] {run.name}: " + " | ".join(parts)


def duration(seconds: float) -> str:
    """Roughly, in words.

    >>> duration(40), duration(150), duration(9000)
    ('40 s', '2 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
