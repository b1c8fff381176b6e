"""One training of a case; and one of several processes that train all cases."""

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from distributed.cases import CASES, REFUSED, SHARDED, WORLD, Case, Ends, deal
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from testbed import Stream, without_lightnings_own_warnings
from torch import Tensor


def train(case: Case, strategy: Strategy | None = None, micro_batches: int = 1) -> dict[str, Any]:
    """What a case's training ends with.

    Args:
        case: what is trained.
        strategy: of several processes, each of which gets its part of every batch; None = one.
        micro_batches: in a single process, the parts of every batch one after the other.
    """
    processes = 1 if strategy is None else WORLD
    rank = 0 if strategy is None else int(os.environ["LOCAL_RANK"])
    parts = max(processes, micro_batches)
    dealt = [deal(case.data(), parts, part) for part in range(parts)]
    one_by_one = [part for together in zip(*dealt, strict=True) for part in together]
    module, ends = case.build(micro_batches), Ends()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=processes, strategy=strategy or "auto",
        # The network is in float64 by itself where Lightning knows no such precision.
        precision="64-true" if case.dtype == torch.float64 and not case.sharded else "32-true",
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[ends],
    )  # fmt: skip
    torch.manual_seed(0)
    with without_lightnings_own_warnings():
        trainer.fit(module, Stream(one_by_one if strategy is None else dealt[rank]))
    weights = {name: whole(weight) for name, weight in module.state_dict().items()}
    return {
        "weights": weights,
        "reduced": ends.reduced,
        "steps": trainer.global_step,
        "loss": float(trainer.callback_metrics["train/loss"]),
    }


def whole(weight: Tensor) -> Tensor:
    """A weight, of which a process may have a shard only."""
    gather = getattr(weight, "full_tensor", None)
    return (weight if gather is None else gather()).detach().clone()


def strategy(kind: str) -> Strategy:
    """A fresh one: each trainer wants its own."""
    if kind == "ddp":
        return DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True)
    return ModelParallelStrategy(
        WORLD, 1, save_distributed_checkpoint=False, process_group_backend="gloo"
    )


def refusal(case: Case) -> str:
    """What is said of a case that does not train."""
    try:
        train(case, strategy("fsdp2"))
    except ValueError as error:
        return str(error)
    return ""


def main(folder: str, kind: str) -> None:
    """Train all cases as one of the processes; the environment says which."""
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("error")
    outcome: dict[str, Any] = {}
    for name, case in (CASES if kind == "ddp" else SHARDED).items():
        print(name, flush=True)
        outcome[name] = train(case, strategy(kind))
    if kind == "fsdp2":
        for name, (case, _) in REFUSED.items():
            outcome[f"refused {name}"] = refusal(replace(case, sharded=True))
    torch.save(outcome, Path(folder) / f"{kind}-{os.environ['LOCAL_RANK']}.pt")
