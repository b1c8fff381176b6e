"""What a method costs in other people's projects: FGM's step over two plain passes.

    python -m benchmarks.adoption --shape minilm --rounds 5
    python -m benchmarks.adoption --shape tiny --rounds 9

By turns within each round: two passes, forward and backward, and a step of the optimizer in bare
PyTorch; then FGM by this library's module, by an adopted module in its own Trainer, and by a bare
loop's `method.step`. Beside them a module's own plain training, and the same adopted by
`finetune`. Medians over rounds of the ratios within a round.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import lightning as L
from torch import Tensor
from torch.optim import SGD

from benchmarks import subject
from benchmarks.silence import silent
from benchmarks.subject import SHAPES, Subject
from lit_adv import adopt
from lit_adv.descent import Descent, Schedule
from lit_adv.methods.fgm import FGM

RADIUS, RATE = 0.1, 1e-4


class Theirs(L.LightningModule):
    """A module of somebody else's around the timed network."""

    def __init__(self, timed: Subject) -> None:
        super().__init__()
        self.network = timed.network
        self.loss = lambda batch: timed.losses(batch).mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=RATE)


def ways(timed: Subject, steps: int) -> dict[str, Callable[[], float]]:
    """From each way's name to a function that answers with its seconds per step."""
    optimizer = SGD(timed.network.parameters(), lr=RATE)
    method = FGM(radius=RADIUS).on(timed.network)

    def bare(passes: int) -> float:
        start = timed.now()
        for _ in range(steps):
            for _ in range(passes):
                timed.losses().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return (timed.now() - start) / steps

    def by_step() -> float:
        start = timed.now()
        for _ in range(steps):
            method.step(lambda: timed.losses().mean(), timed.batch)
            optimizer.step()
            optimizer.zero_grad()
        return (timed.now() - start) / steps

    def fitted(build: Callable[[], L.LightningModule]) -> float:
        clock = Clock(timed)
        timed.trainer(1, clock).fit(build(), timed.loader(steps + 1))
        return clock.seconds / steps

    def own() -> L.LightningModule:
        constant = Schedule(name="constant", warmup=0.0)
        descent = Descent(optimizer=partial(SGD, lr=RATE), schedule=constant)
        return FGM(timed.task, descent, radius=RADIUS)

    return {
        "one pass": partial(bare, 1),
        "two passes": partial(bare, 2),
        "own module": partial(fitted, own),
        "adopted": partial(fitted, lambda: adopt(Theirs(timed), "fgm", radius=RADIUS)),
        "method.step": by_step,
        "theirs, plain": partial(fitted, lambda: Theirs(timed)),
        "adopted, plain": partial(fitted, lambda: adopt(Theirs(timed), "finetune")),
    }


class Clock(L.Callback):
    """Seconds from the end of the first batch to that of the last."""

    def __init__(self, timed: Subject) -> None:
        self.seconds, self._timed, self._start = 0.0, timed, 0.0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = self._timed.now()
        self._start = self._start if batch_idx else now
        self.seconds = now - self._start


def measure(shape: str, batch: int, tokens: int, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds per step, and their ratios to the floor of the same round."""
    timed = subject.build(shape, batch, tokens, "32-true", False)
    taken: dict[str, list[float]] = {}
    over: dict[str, list[float]] = {}
    for _ in range(rounds):
        now = {name: way() for name, way in ways(timed, steps).items()}
        for name, seconds in now.items():
            floor = now["one pass"] if name.endswith("plain") else now["two passes"]
            taken.setdefault(name, []).append(seconds)
            over.setdefault(name, []).append(seconds / floor)
    return {
        name: {
            "milliseconds": 1000 * median(taken[name]),
            "over_floor": median(over[name]),
            "smallest": min(over[name]),
            "largest": max(over[name]),
        }
        for name in taken
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), default="minilm")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    options = vars(parser.parse_args())
    with silent():
        print(json.dumps({"settings": options, "ways": measure(**options)}, indent=2))


if __name__ == "__main__":
    main()
