"""One of several processes, each with its part of every batch, in other people's ways."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from adoption.theirs import LOGITS, Case, Theirs, in_double, loss_of
from distributed.cases import WORLD, Ends
from lightning.fabric import Fabric
from lightning.pytorch.strategies import DDPStrategy
from testbed import Stream, Tensors, batches, cut, weights, without_lightnings_own_warnings
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from lit_adv import adopt
from lit_adv.flood.fixed import Fixed
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

CASES = {
    "finetune": Case("finetune"),
    "fgm": Case("fgm"),
    "free_at": Case("free_at"),
    "sam": Case("fgm", lambda: {"update": SAM(0.3)}),
    "penalty": Case("fgm", lambda: {"update": GradientPenalty(0.1)}),
    "flood": Case("fgm", lambda: {"flood": Fixed(0.69), "mask": ChildF(0.5)}),
    "held": Case("fgsm", lambda: {"proximal": MBPP(beta=0.5)}),
    "parts": Case("fgm", lambda: {"flood": Fixed(0.69), "update": SAM(0.3)}, parts=2),
}
STEPS = 3


def data(case: Case, parts: int = 1, part: int = 0) -> list[Tensors]:
    """One part's rows of each batch."""
    size, whole = 8 // parts, batches(STEPS * case.parts, size=8)
    return [cut(batch, *[size] * parts)[part] for batch in whole]


def adopted(case: Case, rank: int | None) -> dict[str, Any]:
    """By Lightning; None = alone, with whole batches."""
    torch.manual_seed(0)
    module = adopt(Theirs(case.network), steady(case), logits=f"network.{LOGITS}")
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=1 if rank is None else WORLD, precision="64-true",
        strategy="auto" if rank is None else DDPStrategy(process_group_backend="gloo"),
        accumulate_grad_batches=case.parts, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[Ends()],  # whose hook reduces by a call that can be counted
    )  # fmt: skip
    torch.manual_seed(0)
    with without_lightnings_own_warnings(), counting() as sizes:
        dealt = data(case) if rank is None else data(case, WORLD, rank)
        trainer.fit(module, Stream(dealt))
    return {"weights": weights(module.network), "reduced": sum(sizes)}


def by_hand(case: Case, rank: int, fabric: Fabric | None = None) -> dict[str, Any]:
    """By a loop of their own; Fabric wraps the network itself."""
    network = case.network
    optimizer: Any = SGD(network.parameters(), lr=0.1)
    options: dict[str, Any] = {"at": "bert.embeddings.word_embeddings", "logits": LOGITS}
    if fabric is None:
        driven: Any = DistributedDataParallel(network)
    else:
        driven, optimizer = fabric.setup(network, optimizer)
        options["backward"] = fabric.backward
    torch.manual_seed(0)
    method = steady(case).on(
        driven, optimizer=optimizer, accumulate_grad_batches=case.parts, **options
    )
    with counting() as sizes:
        for number, batch in enumerate(data(case, WORLD, rank), 1):
            method.step(partial(loss_of, driven, batch), batch)
            if number % case.parts == 0:
                optimizer.step()
                optimizer.zero_grad()
    return {"weights": weights(network), "reduced": sum(sizes)}


@contextmanager
def counting() -> Iterator[list[int]]:
    """The sizes of what is reduced by hand inside the block, but for a few numbers of a window."""
    sizes: list[int] = []
    reduce = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        if tensor.numel() > 5:
            sizes.append(tensor.numel())
        return reduce(tensor, *args, **options)

    dist.all_reduce = counted
    try:
        yield sizes
    finally:
        dist.all_reduce = reduce


def steady(case: Case) -> Any:
    """The method without noise, which differs between processes."""
    recipe = case.recipe
    if "init_size" in recipe.options:
        recipe.options["init_size"] = 0.0
    return recipe


def main(folder: str, kind: str) -> None:
    """All cases, in both ways."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rank = int(os.environ["LOCAL_RANK"])
    with in_double():
        ends = {f"adopted {name}": adopted(case, rank) for name, case in CASES.items()}
        fabric = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp", precision="64-true")
        fabric.launch()
        ends |= {f"bare {name}": by_hand(case, rank) for name, case in CASES.items()}
        ends |= {f"fabric {name}": by_hand(case, rank, fabric) for name, case in CASES.items()}
    torch.save(ends, Path(folder) / f"{kind}-{rank}.pt")
