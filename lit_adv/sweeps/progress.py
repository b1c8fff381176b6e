"""A line for every run that ends: which of how many, what came out, the best so far, time left."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
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
        count: of all runs of the sweep.
        done: those of them that are only counted.
        metric: that the best is told by; None = the runs' own.
        every: seconds between two looks.
    """

    def __init__(
        self, count: int, done: Sequence[Job], metric: str | None = None, every: float = 1.0
    ) -> None:
        self._count, self._metric, self._every = count, metric, every
        self._ended = [_read(job) for job in done]
        self._watched: list[Job] = []
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def watch(self, jobs: Sequence[Job]) -> None:
        """Tell of these too when they end, or now if they have."""
        self._watched += jobs

    def __enter__(self) -> "Progress":
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

    def _look(self) -> None:
        for job in [job for job in self._watched if job.state != "missing"]:
            self._watched.remove(job)
            self._ended.append(_read(job))
            done = len(self._ended)
            spent = time.monotonic() - self._start
            left = spent / (done - self._before) * (self._count - done)
            told = line(self._ended[-1], self._ended, self._count, left, self._metric)
            print(told, file=sys.stderr, flush=True)


def _read(job: Job) -> Run:
    return read(job.folder, job.label or job.folder.name)


def line(run: Run, ended: Sequence[Run], count: int, left: float, metric: str | None = None) -> str:
    """What is said of a run that has ended.

    Args:
        run: it.
        ended: all that have, it among them.
        count: of all runs of the sweep.
        left: seconds.
        metric: that the best is told by; None = the one that reports choose by.
    """
    parts = [run.reason or "finished"]
    if metric is None:
        with suppress(ValueError):  # a report will say that nothing can be compared
            metric = metrics.choose([r for r in ended if r.state == "ok"], None).chosen
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
