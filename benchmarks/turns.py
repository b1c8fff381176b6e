"""One method's turn: some steps through Lightning's Trainer, the bare passes between them."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

import lightning as L
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig

from benchmarks import rate
from benchmarks.bare import Bare
from benchmarks.floor import Units, units
from benchmarks.memory import StepPeak
from benchmarks.subject import Subject
from lit_adv import config, regions
from lit_adv.run import build

# Beside every method, what happens between the gradient and the step.
PIECES = {
    "flood=fixed": Units(),
    "mask=child_f": Units(),
    "proximal=vbpp": Units(forward=1),
    "update=sam": Units(fresh=2),  # it takes the first gradient away
    "update=gradient_penalty": Units(fresh=2),
}


@dataclass
class Runner:
    """What is run, what it must cost, and what it has cost so far.

    Args:
        cfg: composed configuration.
        units: of an ideal step.
        flops: of a step, relative to those of a plain one.
        plain_attention: whether it needs attention without a fused kernel.
    """

    cfg: DictConfig
    units: Units
    flops: float
    plain_attention: bool = False
    rounds: list["Round"] = field(default_factory=list)
    peak_mib: float = 0.0


@dataclass
class Round:
    """One turn.

    Args:
        seconds: of every timed step.
        timed: seconds of every unit, before the first of these steps and after each of them.
    """

    seconds: list[float]
    timed: list[dict[str, float]]

    @property
    def step(self) -> float:
        """Median seconds per step."""
        return median(self.seconds)

    def over(self, units: Units) -> float:
        """Median of each step's time over the floor's, timed before and after it."""
        floors = [units.seconds(timed) for timed in self.timed]
        around = [(a + b) / 2 for a, b in zip(floors, floors[1:], strict=False)]
        return median(s / floor for s, floor in zip(self.seconds, around, strict=True))


class Clock(L.Callback):
    """Times training steps, and after each of them the bare passes, while nobody else computes.

    Args:
        bare: the passes.
        runner: whose units are wanted.
        count: timed steps, after one for warming up.
        subject: network and batch.
    """

    def __init__(self, bare: Bare, runner: Runner, count: int, subject: Subject) -> None:
        self.outcome = Round([], [])
        self._bare, self._count, self._now = bare, count, subject.now
        counts = (runner.units, runner.units.as_bare)
        self._wanted = {unit for units in counts for unit, n in units._asdict().items() if n}
        self._plain_attention = runner.plain_attention
        self._cold = not runner.rounds
        self._since = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._since = self._now()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        taken = self._now() - self._since
        if batch_idx > self._count:
            return
        if batch_idx:
            self.outcome.seconds.append(taken)
        elif self._cold:
            self._bare.time(self._wanted, plain_attention=self._plain_attention)
        timed = self._bare.time(self._wanted, plain_attention=self._plain_attention)
        self.outcome.timed.append(timed)


def runners(names: list[str], pieces: list[str], subject: Subject) -> dict[str, Runner]:
    """What takes turns, by its name; a compiled network cannot be differentiated twice."""
    made = {}
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        for name in names:
            cfg = compose("train", [f"method={name}", "output_dir=."])
            double = get_class(cfg.method._target_).differentiates_twice
            if double and regions.compiled(subject.network):
                continue
            module = build(cfg, subject.task)
            counted = units(module.cost, double=double, own_steps=module.passes == "own steps")
            flops = rate.relative_flops(module, subject)
            made[name] = Runner(cfg, counted, flops, double)
        for piece in pieces:
            cfg = compose("train", [piece, "output_dir=."])
            flops = rate.relative_flops(build(cfg, subject.task), subject)
            made[piece] = Runner(cfg, PIECES[piece], flops)
    return dict(sorted(made.items(), key=lambda item: item[1].units.cost.relative))


def take(runner: Runner, subject: Subject, bare: Bare, count: int) -> None:
    """One turn of this runner; its first one also finds the peak of memory, in a step more."""
    first = not runner.rounds
    clock = Clock(bare, runner, count, subject)
    peak = StepPeak(count + 1, subject.device)
    trainer = subject.trainer(1, clock, peak)
    trainer.fit(build(runner.cfg, subject.task), subject.loader(count + 1 + first))
    runner.rounds.append(clock.outcome)
    runner.peak_mib = max(runner.peak_mib, peak.mib)
