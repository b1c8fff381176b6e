"""report.html: a sweep, to be read in a browser. One file, nothing fetched from outside.

The frame, with its style and script, is page.html. Every text of the runs passes through `safe`.
"""

from collections.abc import Sequence
from pathlib import Path

from lit_adv.pages.parts import fill, safe
from lit_adv.pages.parts import write as write_whole
from lit_adv.reports import labels, notes, tables
from lit_adv.reports.pictures.picture import Picture
from lit_adv.reports.sweep import Problem, Sweep


def write(path: Path, sweep: Sweep, pictures: Sequence[tuple[Picture, str]], title: str) -> None:
    """Write the page whole or not at all.

    Args:
        path: file to write.
        sweep: what it is of.
        pictures: each with the name of its PNG beside the page.
        title: of the page.
    """
    parts = {
        "title": safe(title),
        "lead": _lead(sweep),
        "tiles": "\n".join(_tiles(sweep)),
        "figures": "\n".join(_figure(picture, png) for picture, png in pictures)
        or '<p class="quiet">There is nothing to draw yet.</p>',
        "settings": tables.settings(sweep),
        "runs": tables.runs(sweep, path),
        "notes": "".join(f"<li>{safe(note)}</li>" for note in notes.of(sweep)),
    }
    write_whole(path, fill("lit_adv.reports", "page.html", parts))


def _lead(sweep: Sweep) -> str:
    metric = sweep.metric
    better = "less" if metric.less else "more"
    parts = [
        f"{_count(sweep.runs, 'run')} of {_count(sweep.settings, 'setting')}",
        f"<code>{safe(metric.shown)}</code>, of which {better} is better",
    ]
    if metric.chosen:
        parts.append(f"the best is chosen by <code>{safe(metric.chosen)}</code>")
    table = '<a href="./sweep.csv">sweep.csv</a>'
    return f"{' &middot; '.join(parts)} &middot; {table}"


def _tiles(sweep: Sweep) -> list[str]:
    tiles = [tile for problem in sweep.problems for tile in _best(sweep, problem)]
    states = {state: [run for run in sweep.runs if run.state == state] for state in
              ("ok", "failed", "pruned", "running")}  # fmt: skip
    others = ", ".join(f"{len(found)} {s}" for s, found in states.items() if found and s != "ok")
    tiles.append(_tile("Finished runs", f"{len(states['ok'])} of {len(sweep.runs)}",
                       others or "none failed, none running"))  # fmt: skip
    counts = sorted({len(s.runs) for s in sweep.settings if s.runs}) or [0]
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    tiles.append(_tile("Seeds per setting", seeds, "finished ones"))
    return tiles


def _best(sweep: Sweep, problem: Problem) -> list[str]:
    metric, best = sweep.metric, problem.best
    data = f" on {problem.data}" if problem.data else ""
    if best is None:
        return [_tile(f"Best setting{data}", "-", "no validation metric to choose it by")]
    found = best.spread(metric.shown)
    name = f"#{best.number} {sweep.label(best)}"
    by = best.spread(metric.chosen)
    tiles = [
        _tile(
            f"Best by {metric.chosen}{data}: its {metric.shown}",
            labels.figure(found.mean if found else None),
            f"{name}; {metric.chosen} {labels.spread(by)}",
        )
    ]
    base, gap = sweep.baselines.get(best.number), sweep.difference(best)
    if base is None:
        note = "the best is the baseline" if _is_base(sweep, best) else "no baseline among the runs"
        tiles.append(_tile(f"Against plain training{data}", "-", note))
    else:
        interval = labels.difference(gap).partition(" ")[2] or "no interval"
        pairs = f"{gap.n if gap else 0} paired seed{'' if gap and gap.n == 1 else 's'}"
        tiles.append(
            _tile(
                f"Against {sweep.label(base)}{data}",
                f"{gap.mean:+.4f}" if gap and gap.half is not None else "-",
                f"95 % {interval}, {pairs}",
            )
        )
    return tiles


def _is_base(sweep: Sweep, setting: object) -> bool:
    return any(base is setting for base in sweep.baselines.values())


def _tile(name: str, figure: str, note: str) -> str:
    figures = f'<dd>{safe(figure)}</dd><dd class="quiet">{safe(note)}</dd>'
    return f"<div><dt>{safe(name)}</dt>{figures}</div>"


def _figure(picture: Picture, png: str) -> str:
    return "\n".join(
        [
            "<figure>",
            f"<figcaption>{safe(picture.title)}</figcaption>",
            f'<div class="drawing">{picture.html()}</div>',
            f'<p class="quiet">{safe(picture.caption)} <a href="./{safe(png)}">PNG</a></p>',
            "</figure>",
        ]
    )


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
