"""What is trained in one process and in several, and must come out alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import new_class
from typing import Any, cast

import lightning as L
import torch
from testbed import FREE, METHODS, Method, Recorder, Tensors, batches, bert, classify, sgd
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lit_adv.descent import Descent, adamw
from lit_adv.finetuner import FineTuner
from lit_adv.flood.ada import Ada
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.masks.child_d import ChildD
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.vbpp import VBPP
from lit_adv.tasks.task import Batch
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import Update

WORLD = 2
JOINT = ("fgm_table", "infobert")
"""Methods with a term that couples the examples of a batch, by design."""


class Dealt(Recorder):
    """Draws noise for the whole batch of all processes, and takes the rows of its own part."""

    draws = 0

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.draws = 0
        super().training_step(batch, batch_idx)

    def _seeded(self, batch: Mapping[str, Any]) -> Batch:
        self.draws += 1
        self.noise.manual_seed(1000 * batch["number"] + self.draws)
        return batch["whole"]

    def sample(self, batch: Batch, *args: Any, **options: Any) -> Tensor:
        return super().sample(self._seeded(batch), *args, **options)[batch["rows"]]

    def gaussian(self, batch: Batch, *args: Any, **options: Any) -> Tensor:
        return super().gaussian(self._seeded(batch), *args, **options)[batch["rows"]]


def deal(whole: Sequence[Tensors], parts: int, part: int) -> list[dict[str, Any]]:
    """The batches of one of several processes."""
    dealt = []
    for number, batch in enumerate(whole):
        rows = torch.arange(part, len(batch["labels"]), parts)
        mine = {name: value[rows] for name, value in batch.items()}
        dealt.append({**mine, "whole": batch, "rows": rows, "number": number})
    return dealt


@dataclass
class Case:
    """A method with a descent, and what it trains on.

    Args:
        method: its name in the testbed.
        descent: options of the descent; called anew for each training.
        options: of the method.
        sizes: examples of each batch.
        dtype: of the network.
        sharded: whether the weights are dealt out to the processes.
        task: options of the task.
    """

    method: str = "finetune"
    descent: Callable[[], dict[str, Any]] = dict
    options: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = (8, 8, 8, 8, 8)
    dtype: torch.dtype = torch.float64
    sharded: bool = False
    task: dict[str, Any] = field(default_factory=dict)

    def data(self) -> list[Tensors]:
        """The batches of a single process."""
        whole, start = [], 0
        for seed, size in enumerate(self.sizes):
            (batch,) = batches(size=size, seed=seed)
            index = torch.arange(start, start + size)
            whole.append({**batch, "index": index})
            start += size
        return whole

    def build(self, micro_batches: int = 1) -> Recorder:
        """A fresh module, which takes so many micro-batches for each batch."""
        torch.manual_seed(0)
        options = {**momentum(), **self.descent()}
        options["accumulate_grad_batches"] = (
            options.get("accumulate_grad_batches", 1) * micro_batches
        )
        build = FREE if self.method == "free_at" else METHODS[self.method]
        task = classify(bert(), **self.task).to(self.dtype)
        return dealing(build)(task, sgd(**options), **self.options)


def dealing(method: Method) -> Method:
    """The method, drawing its noise for the whole batch."""
    of = cast("partial[Recorder]", method) if isinstance(method, partial) else partial(method)
    if isinstance(of.func, type):
        return partial(_dealing(of.func), *of.args, **of.keywords)

    def build(task: Any, descent: Descent, **options: Any) -> Recorder:  # yopo
        module = of(task, descent, **options)
        module.__class__ = _dealing(type(module))
        return module

    return build


def _dealing(of: type[FineTuner]) -> type[Recorder]:
    return cast("type[Recorder]", new_class(of.__name__, (Dealt, of)))


def momentum() -> dict[str, Any]:
    return {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}


def adam() -> dict[str, Any]:
    # Gradients that are zero but for rounding, as of the keys' biases, would be blown up to the
    # learning rate by a smaller eps.
    return {"optimizer": partial(adamw, lr=1e-3, eps=1e-3), "gradient_clip_val": 1.0}


def adam_and(name: str, build: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {**adam(), name: build()}


def flooded_by_example() -> dict[str, Any]:
    flood = Ada()
    flood.adopt(torch.linspace(0, 2, 40))
    return {"flood": flood}


CASES: dict[str, Case] = {
    **{name: Case(name) for name in METHODS},
    "free_at": Case("free_at"),
    "adam": Case("freelb", adam),
    "float32": Case("smart", dtype=torch.float32),
    "flood": Case("finetune", lambda: {"flood": Fixed(0.69)}),
    "flood, freelb": Case("freelb", lambda: {"flood": Fixed(0.69)}),
    "flood, smart": Case("smart", lambda: {"flood": Fixed(0.69), "proximal": MBPP()}),
    "flood, free_at": Case("free_at", lambda: {"flood": Fixed(0.69)}),
    "iflood": Case("pgd_a", lambda: {"flood": Individual(0.69)}),
    "adaflood": Case("finetune", flooded_by_example),
    "mbpp": Case("smart", lambda: {"proximal": MBPP(beta=0.5)}),
    "vbpp, freelb": Case("freelb", lambda: {"proximal": VBPP()}),
    "mbpp, free_at": Case("free_at", lambda: {"proximal": MBPP(beta=0.5)}),
    "child_f": Case("fgm", lambda: {"mask": ChildF(share=0.4)}),
    "child_d": Case("fgm", lambda: {"mask": ChildD(share=0.4)}),
    "child_d, some": Case("finetune", lambda: {"mask": ChildD(share=0.4, examples=5)}),
    "sam": Case("freelb", lambda: {"update": SAM()}),
    "asam": Case("finetune", lambda: {"update": ASAM()}),
    "awp": Case("fgm", lambda: {"update": AWP()}),
    "backstitch": Case("finetune", lambda: {"update": Backstitch()}),
    "alternate": Case("finetune", lambda: {"update": Alternate()}),
    "gradient_penalty": Case("fgm", lambda: {"update": GradientPenalty()}),
    "uneven": Case("freelb", sizes=(8, 8, 5, 8, 3)),
    "uneven flood": Case(
        "smart", lambda: {"flood": Fixed(0.69), "update": SAM()}, sizes=(8, 3, 8, 8, 5)
    ),
    "accumulated": Case("freelb", lambda: {"accumulate_grad_batches": 2}),
    "accumulated flood": Case(
        "smart", lambda: {"accumulate_grad_batches": 3, "flood": Fixed(0.69)}, sizes=(8, 8, 8, 8, 5)
    ),
    "head": Case("finetune", task={"head_init": "closed_form"}, sizes=(8, 8, 5, 8, 3)),
    "infobert, apart": Case("infobert", options={"alpha": 0.0, "beta": 0.0}),
    "late attacks": Case("infobert", options={"start_step": 2, "every_n_steps": 2}),
}

REFUSED: dict[str, tuple[Case, str]] = {
    "llr": (Case("llr"), "LLR differentiates twice"),
    "input_gradient_penalty": (Case("input_gradient_penalty"), "differentiates twice"),
    "exact": (
        Case("finetune", lambda: {"update": GradientPenalty(form="exact")}),
        "update.form=exact: the norm would be that of one of 2 processes' gradients",
    ),
    "yopo": (Case("yopo"), "YOPO runs layers without the others"),
    "infobert": (Case("infobert"), "InfoBERT trains weights beside the network's"),
    "child_f": (Case("fgm", lambda: {"mask": ChildF()}), "mask=ChildF draws for whole weights"),
    "child_d": (Case("fgm", lambda: {"mask": ChildD()}), "mask=ChildD draws for whole weights"),
}
"""What does not train where weights are sharded, and why."""

NAMES = {case.method for case, _ in REFUSED.values()} - {"finetune", "fgm"} | {"yopo_pmp"}

UPDATES: dict[str, type[Update]] = {
    "sam": SAM,
    "asam": ASAM,
    "awp": AWP,
    "backstitch": Backstitch,
    "alternate": Alternate,
    "gradient_penalty": GradientPenalty,
}

SHARDED: dict[str, Case] = {
    name: replace(case, sharded=True)
    for name, case in {
        **{name: Case(name, adam) for name in [*METHODS, "free_at"] if name not in NAMES},
        **{name: Case("fgm", adam_and("update", build)) for name, build in UPDATES.items()},
        "mbpp": Case("smart", adam_and("proximal", partial(MBPP, beta=0.5))),
        "mbpp, flood": Case(
            "freelb", lambda: {**adam(), "proximal": MBPP(beta=0.5), "flood": Fixed(0.69)}
        ),
        "uneven": Case("freelb", adam, sizes=(8, 8, 5, 8, 3)),
        "accumulated": Case("smart", lambda: {**adam(), "accumulate_grad_batches": 2}),
    }.items()
}


class Ends(L.Callback):
    """What a training ends with, and the gradient reductions on the way."""

    def __init__(self) -> None:
        self.reduced: list[int] = []  # coordinates reduced in each optimizer step
        self._now = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        wrapped = trainer.strategy.model
        if isinstance(wrapped, nn.parallel.DistributedDataParallel):
            wrapped.register_comm_hook(None, self._reduce)

    def _reduce(self, _: None, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        self._now += bucket.buffer().numel()
        group = torch.distributed.group.WORLD
        assert group is not None
        return allreduce_hook(group, bucket)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.reduced.append(self._now)
        self._now = 0
