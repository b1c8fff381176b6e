"""What gradient accordance costs.

    python -m benchmarks.accordance
    python -m benchmarks.accordance --shape minilm --rounds 5 --json

Three tables: all pairs of batches by definition against the streaming form, on vectors of the size
of the network; the pass over probe batches against a training pass over the same batches; and what
the callback adds to an epoch. Batches have two classes and are full.
"""

import argparse
import json
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import lightning as L
import torch
from torch import Tensor

from benchmarks.memory import MIB, Rise
from benchmarks.subject import Subject, build
from lit_adv.accordance.how import batch_labels, task_losses
from lit_adv.accordance.probe import Probe
from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.descent import Descent
from lit_adv.functional.accordance import Accordance
from lit_adv.functional.sketch import CountSketch
from lit_adv.methods.finetune import FineTune

CLASSES = 2
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "moving": {"theta": "moving"},
    "head": {"parameters": "head"},
    "all batches": {"batches": 1.0},
}


def gradients(count: int, size: int) -> Iterator[Iterator[tuple[int, Tensor]]]:
    """Vectors of so many batches, one at a time."""
    stream = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield ((label, torch.randn(size, generator=stream)) for label in range(CLASSES))


def pairs(count: int, size: int) -> float:
    """By the definition: the mean over all pairs of different batches, of other classes."""
    batches = [dict(batch) for batch in gradients(count, size)]
    total, number = 0.0, 0
    for s, mine in enumerate(batches):
        for theirs in batches[:s]:
            for i, a in mine.items():
                for j, b in theirs.items():
                    if i != j:
                        total += float(torch.nn.functional.cosine_similarity(a, b, 0))
                        number += 1
    return total / number


def streaming(count: int, size: int) -> float:
    """The same by sums."""
    accordance = Accordance(matrix=False)
    for batch in gradients(count, size):
        accordance.update(batch)
    return accordance.compute()["cross"]


def growth(counts: list[int], size: int) -> list[dict[str, Any]]:
    """Seconds and MiB of both, for growing numbers of batches of vectors of this size."""
    rows = []
    for count in counts:
        row: dict[str, Any] = {"batches": count}
        values = []
        for name, run in (("pairs", pairs), ("streaming", streaming)):
            since = time.perf_counter()
            values.append(run(count, size))
            row[f"{name}_s"] = time.perf_counter() - since
        with Rise(torch.device("cpu")) as rise:
            _ = [dict(batch) for batch in gradients(count, size)]  # what the definition goes over
        row["pairs_mib"] = rise.bytes / MIB
        with Rise(torch.device("cpu")) as rise:
            streaming(count, size)
        row["streaming_mib"] = rise.bytes / MIB
        assert abs(values[0] - values[1]) < 1e-5, values
        rows.append(row)
    return rows


class Passes(L.Callback):
    """Times, in turns, a training pass over a batch and a probe's passes over it."""

    def __init__(self, subject: Subject, rounds: int) -> None:
        self._subject, self._rounds = subject, rounds
        self.seconds: dict[str, list[float]] = {"training": [], "probe": [], "sketched": []}
        self.copies = 0.0
        """Peak memory of probing several batches over that of one class's gradient, in networks."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        probe = Probe(pl_module, task_losses, batch_labels)
        exact = Accordance(matrix=False)
        sketched = Accordance(matrix=False, sketch=CountSketch())

        def training() -> None:
            with self._subject.autocast():
                self._subject.losses(batch).mean().backward()
            pl_module.zero_grad()

        def look(accordance: Accordance) -> None:
            with probe.standing_still():
                accordance.update(probe.classes(batch))

        runs = {
            "training": training,
            "probe": lambda: look(exact),
            "sketched": lambda: look(sketched),
        }
        rises = []
        with Rise(self._subject.device) as rise, probe.standing_still():
            next(probe.classes(batch))
        rises.append(rise.bytes)
        several = Accordance(matrix=False)
        with Rise(self._subject.device) as rise, probe.standing_still():
            for _ in range(3):
                several.update(probe.classes(batch))
            several.compute()
        rises.append(rise.bytes)
        network = sum(w.numel() * w.element_size() for w in probe.weights)
        self.copies = (rises[1] - rises[0]) / network
        for turn in range(self._rounds + 1):
            for name, run in runs.items():
                since = self._subject.now()
                run()
                if turn:  # the first one warms up
                    self.seconds[name].append(self._subject.now() - since)


def passes(subject: Subject, rounds: int) -> dict[str, float]:
    """Median seconds of a training pass, and what probes take relative to it; see `Passes`."""
    clock = Passes(subject, rounds)
    subject.trainer(1, clock).fit(FineTune(subject.task, Descent()), subject.loader(1))
    seconds = clock.seconds
    both = {name: zip(seconds[name], seconds["training"], strict=True) for name in seconds}
    ratios = {name: median(a / b for a, b in turns) for name, turns in both.items()}
    return {"training_s": median(seconds["training"]), **ratios, "copies": clock.copies}


def epoch(subject: Subject, batches: int, options: dict[str, Any] | None) -> float:
    """Seconds of one epoch, with the callback or without."""
    watch = [] if options is None else [GradientAccordance(**options, picture=None)]
    trainer = subject.trainer(1, *watch)
    since = subject.now()
    trainer.fit(FineTune(subject.task, Descent()), subject.loader(batches))
    return subject.now() - since


def overhead(subject: Subject, batches: int, rounds: int, settings: list[str]) -> dict[str, float]:
    """Median of an epoch's time with the callback over that of the one without before it."""
    epoch(subject, 2, None)
    ratios: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(rounds):
        for name in settings:
            plain = epoch(subject, batches, None)
            ratios[name].append(epoch(subject, batches, SETTINGS[name]) / plain)
    return {name: median(found) for name, found in ratios.items()}


def main() -> None:
    """Print the tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="minilm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", type=int, default=40, help="in the timed epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--counts", nargs="*", type=int, default=[50, 100, 200, 400])
    parser.add_argument(
        "--size", type=int, default=200_000, help="of the vectors in the first table"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    subject = build(arguments.shape, arguments.batch, arguments.tokens)
    outcome = {
        "growth": growth(arguments.counts, arguments.size),
        "passes": passes(subject, 2 * arguments.rounds),
        "overhead": overhead(subject, arguments.batches, arguments.rounds, arguments.settings),
    }
    if arguments.json:
        print(json.dumps(outcome, indent=2))
        return
    print("| batches | all pairs, s | streaming, s | all pairs, MiB | streaming, MiB |")
    print("|---:|---:|---:|---:|---:|")
    for row in outcome["growth"]:
        seconds = f"{row['pairs_s']:.2f} | {row['streaming_s']:.3f}"
        mib = f"{row['pairs_mib']:.1f} | {row['streaming_mib']:.1f}"
        print(f"| {row['batches']} | {seconds} | {mib} |")
    for table in ("passes", "overhead"):
        print(f"\n| {table} | |\n|---|---:|")
        for name, value in outcome[table].items():
            print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
