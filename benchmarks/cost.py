"""What every method costs: time per step over the floor of its ideal passes, and peak memory.

    python -m benchmarks.cost --rounds 9
    python -m benchmarks.cost --json > cost.json

One process, one network, one batch. In every round each method takes its turn: it runs through
Lightning's Trainer and FineTuner, one step to warm up and then the timed ones, and between any two
of these steps the passes that it is made of are timed in bare PyTorch on the same weights
(benchmarks/floor.py says which, and how they are counted). A step is compared with the floor timed
just before and after it, so that whatever slows the machine down slows both.

* `over_floor`: step time over its floor; the median within the turn, then over the rounds.
* `over_bare`: the same, where double backward passes are timed as one piece.
* `over_plain`: step time over that of method=finetune in the same round.
* `over_bare_plain`: step time over a plain step in bare PyTorch, timed just before and after it,
  which a drift within the round does not touch.
* `flops_over_ideal`: operations of a step, counted, over those of its ideal passes.
* `peak_mib`: weights, optimizer's state and what one step adds to them (benchmarks/memory.py).
* `framework_overhead`: whole epochs of plain fine-tuning through Lightning and FineTuner over a
  bare loop with the same optimizer, clipping and schedule, less 1 (benchmarks/framework.py).
* `ascent_memory`: activations of an ascent with frozen weights over those of a training pass.
* `products`: share of the device's matrix-product rate, measured in the same rounds, that a plain
  step achieves.

The table goes to standard output, the progress bar to standard error.
"""

import argparse
import json
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks import framework, memory, rate, report, subject, turns
from benchmarks.bare import Bare
from benchmarks.silence import silent
from lit_adv import config

PLAIN = "finetune"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, by name."""
    with silent():
        return _measure(arguments)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = (arguments.shape, arguments.batch, arguments.tokens)
    timed = subject.build(*sizes, arguments.precision, arguments.compile)
    flops = rate.flops_per_step(timed)
    names = [PLAIN, *(name for name in arguments.methods if name != PLAIN)]
    runners = turns.runners(names, arguments.pieces, timed)
    ascent = memory.ascent_share(timed)

    bare, overheads, loops, rates = Bare(timed), [], [], []
    with tqdm(total=arguments.rounds * (len(runners) + 1), disable=None, unit="turn") as bar:
        for _ in range(arguments.rounds):
            rates.append(rate.matmul_rate(timed))
            for name, runner in runners.items():
                bar.set_description(name)
                turns.take(runner, timed, bare, arguments.steps)
                bar.update()
            bar.set_description("bare loop")
            ratios, seconds = framework.overheads(timed, 2 * arguments.steps)
            overheads += ratios
            loops += seconds
            bar.update()

    rows = {name: report.row(runner, runners[PLAIN]) for name, runner in runners.items()}
    done = flops / rows[PLAIN]["seconds"]
    return {
        "methods": {name: row for name, row in rows.items() if name in names},
        "pieces": {name: row for name, row in rows.items() if name not in names},
        "framework_overhead": median(overheads),
        "framework": {
            "smallest": min(overheads),
            "largest": max(overheads),
            "host_milliseconds": framework.milliseconds(arguments.precision),
            "bare_seconds": median(loops),
        },
        "ascent_memory": ascent.pop("ratio"),
        "ascent_memory_mib": ascent,
        "products": {
            "flops_per_step": flops,
            "per_second": done,
            "attainable_per_second": median(rates),
            "share": done / median(rates),
        },
        "unit_seconds": report.unit_seconds(list(runners.values())),
        "settings": vars(arguments),
        **report.surroundings(timed.device),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = sorted(path.stem for path in (config.folder() / "method").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="turns of every method")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per turn")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--shape", choices=subject.SHAPES, default="minilm")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--compile", action="store_true", help="the layers, by torch.compile")
    parser.add_argument("--methods", type=_several(known), default=known, help="A,B; default all")
    pieces = list(turns.PIECES)
    parser.add_argument("--pieces", type=_several(pieces), default=pieces, help="A,B; '' for none")
    parser.add_argument("--json", action="store_true", help="one object instead of tables")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a table or JSON."""
    parsed = parse(arguments)
    figures = measure(parsed)
    if parsed.json:
        print(json.dumps(figures, indent=2))
        return
    print(report.table(figures["methods"] | figures["pieces"]))
    print(report.summary(figures))


def _several(known: list[str]) -> Any:
    def split(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown}: choose from {', '.join(known)}")
        return names

    return split


if __name__ == "__main__":
    main()
