"""One function from folders of runs to a report: report.html, sweep.csv and pictures beside it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lit_adv.pages import parts
from lit_adv.reports import finding, page, table
from lit_adv.reports.pictures import attacked, cost, heat, losses, over
from lit_adv.reports.pictures.attacked_drawn import UnderAttackDrawn
from lit_adv.reports.pictures.cost_drawn import CostDrawn
from lit_adv.reports.pictures.heat_drawn import HeatDrawn
from lit_adv.reports.pictures.losses_drawn import LossesDrawn
from lit_adv.reports.pictures.over_drawn import OverDrawn
from lit_adv.reports.pictures.picture import Picture
from lit_adv.reports.sweep import Sweep, sweep


def write(
    folders: Sequence[str | Path], output: str | Path | None = None, metric: str | None = None
) -> Path:
    """Write the report of all runs below these folders; returns the page.

    It may be called at any time, also while runs are at work, and again: every file is written
    whole or not at all.

    Args:
        folders: of sweeps or of runs.
        output: folder to write to; None = the first one.
        metric: such as `test/accuracy`; None = what the runs go by, on the test split.

    Raises:
        ValueError: there is no such folder, no run in them, no such metric, or nothing that the
            runs have in common.
    """
    return write_of(read(folders, metric), Path(output or folders[0]), _title(folders))


def read(folders: Sequence[str | Path], metric: str | None = None) -> Sweep:
    """The sweep that these folders hold; arguments and errors as those of `write`."""
    return sweep(finding.runs([Path(folder) for folder in folders]), metric)


def write_of(found: Sweep, output: Path, title: str) -> Path:
    """Write the report of a sweep that has been read."""
    output.mkdir(parents=True, exist_ok=True)
    drawn = named(pictures(found))
    for picture, png in drawn:
        draw(picture, output / png)
    parts.write(output / "sweep.csv", table.text(found))
    path = output / "report.html"
    page.write(path, found, drawn, title)
    return path


def pictures(found: Sweep) -> list[Picture]:
    """Those that there is something to draw in."""
    drawn: list[Picture] = []
    for problem in found.problems:
        drawn += [HeatDrawn(each) for each in heat.find(found, problem)]
        drawn += [OverDrawn(each) for each in over.find(found, problem)]
        drawn += [CostDrawn(each) for each in cost.find(found, problem)]
        drawn += [UnderAttackDrawn(each) for each in attacked.find(found, problem)]
        drawn += [LossesDrawn(each) for each in losses.find(found, problem)]
    return drawn


def named(drawn: Sequence[Picture]) -> list[tuple[Picture, str]]:
    """Each with the name of its PNG, no two alike."""
    names: dict[str, Picture] = {}
    for picture in drawn:
        name = file_name(picture.name)
        while f"{name}.png" in names:
            name += "_"
        names[f"{name}.png"] = picture
    return [(picture, name) for name, picture in names.items()]


def draw(picture: Picture, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    picture.draw(figure)
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(picture.title, fontsize="medium")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    figure.savefig(part, dpi=150, format="png")
    part.replace(path)


def file_name(name: str) -> str:
    """A name that is a file's on every system and needs no quoting in a link.

    >>> file_name("over-flood.b"), file_name("heat a/b")
    ('over-flood.b', 'heat_a_b')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:120]


def _title(folders: Sequence[str | Path]) -> str:
    names = [Path(folder).resolve() for folder in folders]
    first = "/".join(names[0].parts[-2:])
    return first + (f" and {len(names) - 1} more" if len(names) > 1 else "")
