"""Trainings whose gradient accordance is measured, and one of several processes of them."""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from accordance.brute import CLASSES, Log, network
from accordance.foreign import GoesOn
from distributed.cases import deal, dealing, momentum
from distributed.train import whole
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from testbed import (
    METHODS,
    Recorder,
    Tensors,
    batches,
    bert,
    classify,
    sgd,
    without_lightnings_own_warnings,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_adv.accordance.stretch import MEANS
from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.tasks.classification import Classification

BATCHES, SIZE = 5, 12


@dataclass
class Case:
    """What is trained, and how it is watched.

    Args:
        options: of the callback; None = nobody watches.
        method: its name in the testbed.
        accumulate: batches per optimizer step.
        stop: stops after this many steps, and goes on from there.
    """

    options: dict[str, Any] | None = field(default_factory=dict)
    method: str = "finetune"
    accumulate: int = 1
    stop: int | None = None


WINDOWS = {"every_n_steps": 2}

CASES: dict[str, Case] = {
    "unwatched": Case(None),
    "fixed": Case(),
    "inner products": Case({"normalize": "none", "sketch": 64, "against": "both"}),
    "windows": Case({**WINDOWS, "against": "both"}),
    "validation": Case({"against": "validation"}),
    "head": Case({"parameters": "head", "against": "both"}),
    "accumulated": Case(WINDOWS, accumulate=2),
    "moving": Case({"theta": "moving", **WINDOWS}),
    "moving, freelb": Case({"theta": "moving", "sketch": 64}, "freelb", accumulate=2),
    "some": Case({"batches": 2}),
    "stopped": Case({**WINDOWS, "against": "both"}, stop=3),
    "moving, stopped": Case({"theta": "moving", **WINDOWS}, stop=3),
}

FEW = ("unwatched", "fixed", "windows", "moving", "some")
"""Of three processes."""

SHARDED: dict[str, Case] = {
    "unwatched": Case(None),
    "fixed": Case({"sketch": 2**14}),
    "windows": Case({**WINDOWS, "against": "both", "normalize": "none"}),
    "validation": Case({"against": "validation"}),
    "part": Case({"parameters": "layer.0.attention|classifier", "against": "both", **WINDOWS}),
    "head": Case({"parameters": "head", "against": "both"}),
    "stopped": Case({**WINDOWS, "against": "both"}, stop=3),
}


def data(count: int = BATCHES, seed: int = 0) -> list[Tensors]:
    """Three classes: the first process lacks some now and then, and the third class always."""
    made = []
    for number, batch in enumerate(batches(count, SIZE, seed=seed)):
        labels, rows = batch["labels"].clone(), torch.arange(SIZE)
        if number % 2:
            labels[(rows % 2 == 0) | (rows % 3 == 0)] = 0
        else:
            labels[1] = 2
        made.append({**batch, "labels": labels})
    return made


class Reductions(TorchDispatchMode):
    """Counts the coordinates that are added up over processes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.c10d.allreduce_:
            self.count += sum(tensor.numel() for tensor in args[0])
        return func(*args, **(kwargs or {}))


class Watch(GradientAccordance):
    """Counts the reductions of each batch's end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"batches": 1.0, "picture": None, **options})
        self.reduced: list[int] = []

    def on_train_batch_end(self, *args: Any, **options: Any) -> None:
        with Reductions() as reductions:
            super().on_train_batch_end(*args, **options)
        self.reduced.append(reductions.count)


class Gradients(L.Callback):
    """Of each optimizer step."""

    def __init__(self) -> None:
        self.seen: list[list[torch.Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        there = (weight.grad for weight in pl_module.parameters())
        self.seen.append([whole(grad) for grad in there if grad is not None])


def trained(
    case: Case, kind: str = "ddp", world: int = 1, parts: int = 1, file: Path | None = None
) -> dict[str, Any]:
    """What a case ends with.

    Args:
        case: what is trained.
        kind: `ddp` or `fsdp2`, or what is compared with it.
        world: processes.
        parts: of every batch; one process takes them one after the other, as micro-batches.
        file: of the checkpoint, where the case stops; None = it does not.
    """
    watch, gradients, log = None, Gradients(), Log()
    module, ends = module_of(case, kind, parts // world), dict[str, Tensor]()
    for stop in [None] if case.stop is None or file is None else [case.stop, None]:
        rank = int(os.environ["LOCAL_RANK"]) if world > 1 else None
        module, watch = module_of(case, kind, parts // world), None
        callbacks: list[L.Callback] = [gradients]
        if case.options is not None:
            watch = Watch(**case.options)
            callbacks += [watch, Stop(stop, file)]
        trainer = L.Trainer(
            max_epochs=2 if kind == "ddp" else 1, accelerator="cpu", devices=world,
            strategy=strategy(kind, world),
            precision="64-true" if kind == "ddp" else "32-true", logger=log,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, num_sanity_val_steps=0, max_steps=stop or -1,
            log_every_n_steps=1, callbacks=callbacks,
        )  # fmt: skip
        again = file if case.stop is not None and stop is None else None
        train, held_out = (loader(of, kind, parts, rank) for of in (data(), data(2, seed=9)))
        torch.manual_seed(0)
        with without_lightnings_own_warnings():
            trainer.fit(module, train, held_out, ckpt_path=again)
        ends = {name: whole(weight) for name, weight in module.state_dict().items()}
    readings = [] if watch is None else watch.readings
    return {
        "readings": [
            {"step": r.step, **r.values, **{f"{name}, error": e for name, e in r.errors.items()}}
            for r in readings
        ],
        "epochs": {name: log.series(f"accordance/{name}_epoch") for name in MEANS},
        "reduced": [] if watch is None else watch.reduced,
        "weights": ends,
        "gradients": gradients.seen,
    }


def module_of(case: Case, kind: str, micro: int) -> Recorder:
    """In float64; what is sharded has layers, and two classes."""
    descent = sgd(accumulate_grad_batches=case.accumulate * micro, **momentum())
    of = Classification(network(), num_labels=CLASSES) if kind == "ddp" else classify(bert())
    return dealing(METHODS[case.method])(of, descent)


def loader(whole: Sequence[Tensors], kind: str, parts: int, rank: int | None) -> GoesOn:
    """The parts of one process, or of all of them one after the other."""
    if kind == "fsdp2":
        whole = [{**batch, "labels": batch["labels"] % 2} for batch in whole]
    dealt = [deal(whole, parts, part) for part in range(parts)]
    together = [part for at in zip(*dealt, strict=True) for part in at]
    return GoesOn(together if rank is None else dealt[rank], parts if rank is None else 1)


class Stop(L.Callback):
    """Writes a checkpoint where the training stops."""

    def __init__(self, step: int | None, file: Path | None) -> None:
        self.step, self.file = step, file

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if self.file is not None and trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)


def strategy(kind: str, world: int) -> Any:
    """A fresh one: each trainer wants its own."""
    if world == 1:
        return "auto"
    if kind == "ddp":
        return DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True)
    return ModelParallelStrategy(
        world, 1, save_distributed_checkpoint=False, process_group_backend="gloo"
    )


def cases(world: int) -> list[tuple[str, str]]:
    """Kinds and names of all that so many processes train."""
    if world > 2:
        return [("ddp", name) for name in FEW]
    return [*(("ddp", name) for name in CASES), *(("fsdp2", name) for name in SHARDED)]


def refusal(options: dict[str, Any]) -> str:
    """What is said of a sharded training that cannot be watched so."""
    try:
        trained(Case(options), "fsdp2", 2, 2)
    except ValueError as error:
        return str(error)
    return ""


def main(folder: str, kind: str) -> None:
    """Train all cases as one of the processes, whose number is their kind."""
    world = int(kind)
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("error")
    outcome: dict[str, Any] = {}
    for kind, name in cases(world):
        case = (CASES if kind == "ddp" else SHARDED)[name]
        print(kind, name, flush=True)
        file = Path(folder) / f"{world}-{kind}-{name}.ckpt"
        outcome[f"{kind} {name}"] = trained(case, kind, world, world, file)
    if world == 2:
        outcome["refused"] = refusal({"theta": "moving"})
    torch.save(outcome, Path(folder) / f"{world}-{os.environ['LOCAL_RANK']}.pt")
