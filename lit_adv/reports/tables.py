"""The tables of the page: of settings with what their seeds say, and of runs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lit_adv.pages.parts import safe
from lit_adv.reports import labels
from lit_adv.reports.pictures.cost import SECONDS
from lit_adv.reports.run import Run
from lit_adv.reports.setting import Setting
from lit_adv.reports.settings import Settings
from lit_adv.reports.sweep import Sweep

NONE = '<span class="quiet">-</span>'


@dataclass(frozen=True)
class Cell:
    """One cell.

    Args:
        html: what it shows.
        sort: what it is sorted by; None = it comes last.
        number: whether it is one.
    """

    html: str
    sort: str | float | None = None
    number: bool = False


def settings(sweep: Sweep) -> str:
    """One row per setting: mean, standard deviation, seeds, difference to the baseline."""
    shown, chosen = sweep.metric.shown, sweep.metric.chosen
    columns = ["#", "role", *(sweep.axes or ["setting"]), "seeds"]
    columns += [] if chosen in (None, shown) else [chosen or ""]
    columns += [shown, "to baseline [95 %]", "pairs", "seconds"]
    rows = [(f' data-setting="{s.number}"', _setting(sweep, s)) for s in sweep.settings]
    return table("settings", columns, rows)


def runs(sweep: Sweep, page: Path) -> str:
    """One row per run, with its folder and the pages of its attacks.

    Args:
        sweep: whose runs.
        page: file that links to them.
    """
    shown, chosen = sweep.metric.shown, sweep.metric.chosen
    metrics = [name for name in (chosen, shown) if name]
    metrics = list(dict.fromkeys(metrics))
    attacks = sorted({attack.name for run in sweep.runs for attack in run.attacks})
    columns = ["run", "state", *sweep.axes, "seed", *metrics]
    columns += [f"attack/{name}" for name in attacks if f"attack/{name}" not in metrics]
    columns.append("seconds")
    rows = [
        (f' class="{run.state}"', _run(sweep, run, page, metrics, attacks)) for run in sweep.runs
    ]
    return table("runs", columns, rows)


def table(name: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """A table that the page's script can sort.

    Args:
        name: of its class.
        columns: their heads.
        rows: attributes and cells of each; the first cell is its head.
    """
    numbers = [any(cells[at].number for _, cells in rows) for at in range(len(columns))]
    head = "".join(
        f'<th scope="col"{_right(number)}>{safe(column)}</th>'
        for column, number in zip(columns, numbers, strict=True)
    )
    body = "\n".join(
        f'<tr{attributes}><th scope="row"{_cell(cells[0], numbers[0])}</th>'
        + "".join(f"<td{_cell(*both)}</td>" for both in zip(cells[1:], numbers[1:], strict=True))
        + "</tr>"
        for attributes, cells in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Table of {name}">'
        f'<table class="{name} sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def link(folder: Path, page: Path) -> str:
    """A folder or file as a page links to it: relative, whatever its name holds.

    >>> link(Path("/sweep/b=0.1, #2"), Path("/sweep/report.html"))
    './b%3D0.1%2C%20%232'
    """
    relative = Path(os.path.relpath(folder, page.parent)).as_posix()
    return quote(relative if relative.startswith(".") else f"./{relative}")


def _setting(sweep: Sweep, setting: Setting) -> list[Cell]:
    shown, chosen = sweep.metric.shown, sweep.metric.chosen
    values = _values(setting.values, sweep.axes) or [Cell(safe(sweep.label(setting)))]
    gap = sweep.difference(setting)
    seconds = setting.spread(SECONDS)
    return [
        Cell(f"#{setting.number}", setting.number, number=True),
        _role(sweep, setting),
        *values,
        Cell(_seeds(setting), len(setting.runs), number=True),
        *([] if chosen in (None, shown) else [_spread(setting, chosen or "")]),
        _spread(setting, shown),
        Cell(labels.difference(gap), gap.mean if gap and gap.half is not None else None, True),
        Cell(str(gap.n) if gap else "-", gap.n if gap else None, number=True),
        Cell("-" if seconds is None else f"{seconds.mean:,.1f}", seconds and seconds.mean, True),
    ]


def _role(sweep: Sweep, setting: Setting) -> Cell:
    """Whether it is the best, and by which split; whether others are compared with it."""
    split = str(sweep.metric.chosen).partition("/")[0]
    said = [f"best ({split})" for problem in sweep.problems if problem.best is setting]
    if any(base is setting for base in sweep.baselines.values()):
        said.append("baseline")
    flags = " ".join(f'<span class="flag">{safe(text)}</span>' for text in said)
    return Cell(flags, ", ".join(said) or None)


def _seeds(setting: Setting) -> str:
    beside = [
        f"{len(runs)} {state}"
        for state, runs in (
            ("failed", setting.failed),
            ("pruned", setting.pruned),
            ("running", setting.running),
        )
        if runs
    ]
    note = f'<br><span class="quiet">{"<br>".join(beside)}</span>' if beside else ""
    return f"{len(setting.runs)}{note}"


def _spread(setting: Setting, metric: str) -> Cell:
    found = setting.spread(metric)
    return Cell(labels.spread(found), found and found.mean, number=True)


def _run(sweep: Sweep, run: Run, page: Path, metrics: list[str], attacks: list[str]) -> list[Cell]:
    reason = f'<br><span class="reason">{safe(run.reason)}</span>' if run.reason else ""
    name = f'<a href="{safe(link(run.folder, page))}">{safe(run.name)}</a>'
    state = f'<span class="state">{run.state}</span>{reason}'
    seconds = run.costs.get(SECONDS)
    columns = [*metrics, *(f"attack/{a}" for a in attacks if f"attack/{a}" not in metrics)]
    return [
        Cell(name, run.name),
        Cell(state, run.state),
        *_values(run.settings, sweep.axes),
        *_values(run.settings, ["seed"]),
        *(_metric(run, column, page) for column in columns),
        Cell("-" if seconds is None else f"{seconds:,.1f}", seconds, number=True),
    ]


def _metric(run: Run, name: str, page: Path) -> Cell:
    value = run.metrics.get(name)
    said = labels.figure(value)
    for attack in run.attacks:
        if name == f"attack/{attack.name}" and attack.page:
            said = f'<a href="{safe(link(attack.page, page))}">{said}</a>'
    return Cell(said, value, number=True)


def _values(found: Settings, keys: Sequence[str]) -> list[Cell]:
    cells = []
    for key in keys:
        value = found.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        said = safe(labels.value(value)) if key in found else NONE
        sort = value if number else labels.value(value) if key in found else None
        cells.append(Cell(said, sort, number))  # pyright: ignore
    return cells


def _cell(cell: Cell, number: bool) -> str:
    sort = "" if cell.sort is None else f' data-sort="{safe(cell.sort)}"'
    return f"{sort}{_right(number)}>{cell.html}"


def _right(number: bool) -> str:
    return ' class="number"' if number else ""
