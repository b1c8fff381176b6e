"""sweep.csv: one row per run. Equal sweeps have equal files, but for what the clock says."""

import csv
import io

from lit_adv.reports.axes import differing
from lit_adv.reports.finding import natural
from lit_adv.reports.reading import COSTS
from lit_adv.reports.run import Run
from lit_adv.reports.setting import order
from lit_adv.reports.settings import Value
from lit_adv.reports.sweep import Sweep


def text(sweep: Sweep) -> str:
    """The table.

    Its columns: the settings that differ among runs, empty where a run has none; the seed; state,
    reason and folder; the metrics; steps; last the figures of the clock and the memory, which
    another machine would have otherwise.
    """
    keys = differing(sweep.runs)
    keys += [key for key in sweep.axes if key not in keys]
    metrics = sorted({name for run in sweep.runs for name in run.metrics}, key=_split)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*keys, "seed", "state", "reason", "folder", *metrics, "steps", *COSTS])
    for run in sorted(sweep.runs, key=lambda run: _row(run, keys)):
        writer.writerow(
            [
                *(_cell(run.settings[key]) if key in run.settings else "" for key in keys),
                "" if run.seed is None else run.seed,
                *(run.state, run.reason, run.name),
                *(run.metrics.get(name, "") for name in metrics),
                "" if run.steps is None else run.steps,
                *(run.costs.get(name, "") for name in COSTS),
            ]
        )
    return file.getvalue()


def _row(run: Run, keys: list[str]) -> tuple[object, ...]:
    values = tuple(order(run.settings.get(key)) for key in keys)
    return values, order(run.seed), natural(run.name)


def _cell(value: Value) -> str | int | float:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return value


def _split(name: str) -> tuple[int, str]:
    """Validation, test, attacks."""
    return ("val", "test", "attack").index(name.partition("/")[0]), name
