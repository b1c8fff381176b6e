"""Figures of a measurement: one object for programs, one table for people."""

import platform
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.floor import Units
from benchmarks.turns import Runner
from lit_adv import results

HEADER = (
    "run",
    "F",
    "to inputs",
    "to weights",
    "step s",
    "over floor",
    "smallest - largest",
    "over bare",
    "over plain",
    "over bare plain",
    "ideal",
    "FLOPs / ideal",
    "peak MiB",
)


def row(runner: Runner, plain: Runner) -> dict[str, Any]:
    """What one runner cost, over its floor and over plain fine-tuning in the same rounds."""
    floors = [turn.over(runner.units) for turn in runner.rounds]
    bare = [turn.over(runner.units.as_bare) for turn in runner.rounds]
    strict = [turn.over(runner.units.all_fresh) for turn in runner.rounds]
    nearby = [turn.over(Units()) for turn in runner.rounds]
    plains = [a.step / b.step for a, b in zip(runner.rounds, plain.rounds, strict=True)]
    return {
        "over_floor": median(floors),
        "over_floor_smallest": min(floors),
        "over_floor_largest": max(floors),
        "over_bare": median(bare),
        "over_floor_without_adding": median(strict),
        "over_plain": median(plains),
        "over_plain_smallest": min(plains),
        "over_plain_largest": max(plains),
        "over_bare_plain": median(nearby),
        "seconds": median(turn.step for turn in runner.rounds),
        "peak_mib": runner.peak_mib,
        "passes": list(runner.units.cost),
        "flops_over_ideal": runner.flops / runner.units.cost.relative,
        "ideal_over_plain": runner.units.cost.relative,
        "units": {unit: count for unit, count in runner.units._asdict().items() if count},
    }


def unit_seconds(runners: list[Runner]) -> dict[str, dict[str, float]]:
    """Median seconds of every unit over all turns, by the attention kernel they ran with."""
    found: dict[str, dict[str, list[float]]] = {"default": {}, "plain": {}}
    for runner in runners:
        kernel = found["plain" if runner.plain_attention else "default"]
        for timed in (timed for turn in runner.rounds for timed in turn.timed):
            for unit, seconds in timed.items():
                kernel.setdefault(unit, []).append(seconds)
    return {
        kernel: {unit: median(seconds) for unit, seconds in units.items()}
        for kernel, units in found.items()
    }


def surroundings(device: torch.device) -> dict[str, Any]:
    """The machine and the software that the figures are of."""
    cuda = device.type == "cuda"
    return {
        "machine": torch.cuda.get_device_name(device) if cuda else _processor(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "versions": results.versions(),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, its columns aligned."""
    cells = [HEADER, *(_cells(name, row) for name, row in rows.items())]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [text.ljust(w) if not i else text.rjust(w) for i, (text, w) in enumerate(zipped)]
        for zipped in (list(zip(line, widths, strict=True)) for line in cells)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def summary(figures: dict[str, Any]) -> str:
    """What is not of one method, in a few lines."""
    loop, ascent, products = (
        figures[key] for key in ("framework", "ascent_memory_mib", "products")
    )
    kernels = figures["unit_seconds"].items()
    return "\n".join(
        [
            "",
            f"framework: {figures['framework_overhead']:+.1%} on a bare loop of "
            f"{loop['bare_seconds']:.3f} s per step ({loop['smallest']:+.1%} to "
            f"{loop['largest']:+.1%}); {loop['host_milliseconds']:.1f} ms of a step are the host's",
            f"activations of an ascent / a training pass: {figures['ascent_memory']:.2f} "
            f"({ascent['ascent']:.0f} / {ascent['training']:.0f} MiB)",
            f"plain step: {products['per_second'] / 1e9:.0f} of "
            f"{products['attainable_per_second'] / 1e9:.0f} GFLOP/s, {products['share']:.0%}",
            *(
                f"seconds, {kernel} attention: "
                + ", ".join(f"{unit} {seconds:.3f}" for unit, seconds in units.items())
                for kernel, units in kernels
                if units
            ),
            f"{figures['machine']}, {figures['threads']} threads, "
            + ", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
        ]
    )


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"`{name}`",
        *(f"{count:.3g}" for count in row["passes"]),
        f"{row['seconds']:.3f}",
        f"{row['over_floor']:.3f}",
        f"{row['over_floor_smallest']:.2f} - {row['over_floor_largest']:.2f}",
        f"{row['over_bare']:.3f}",
        f"{row['over_plain']:.2f}",
        f"{row['over_bare_plain']:.2f}",
        f"{row['ideal_over_plain']:.2f}",
        f"{row['flops_over_ideal']:.3f}",
        f"{row['peak_mib']:.0f}",
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
