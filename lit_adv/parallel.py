"""Parallel: which strategies these modules train under, and one gradient reduction per step."""

from collections.abc import Sequence
from contextlib import nullcontext

import lightning as L
import torch
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    ParallelStrategy,
    Strategy,
)
from torch import Tensor, nn

from lit_adv import foreach, mixes, processes, sharding
from lit_adv.descent import Descent
from lit_adv.random_state import apart


def check(strategy: Strategy) -> None:
    """Refuse strategies that take the optimizer step or the backward pass out of our hands.

    Raises:
        ValueError: it is one of these; the line says which to take instead.
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        kind = "fsdp" if isinstance(strategy, FSDPStrategy) else "deepspeed"
        raise ValueError(
            f"trainer.strategy={kind}: steps and reduces gradients by itself, which Lightning does "
            "not let manual optimisation do; take trainer=fsdp2 (ModelParallelStrategy), or ddp "
            "where the model fits on one device"
        )


def reduces_always(strategy: Strategy) -> bool:
    """Whether every backward pass reduces gradients, and not only the last one of a window."""
    return isinstance(strategy, ModelParallelStrategy)


def deal_out(module: L.LightningModule, descent: Descent, network: nn.Module) -> None:
    """Under ModelParallelStrategy: shard the network, once.

    Raises:
        ValueError: layers are meant to be cut as well, or a part of the training cannot do with a
            process's share of the weights.
    """
    mesh = module.device_mesh
    if mesh is None or sharding.dealt_out(network):
        return
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            f"trainer.strategy.tensor_parallel_size={mesh['tensor_parallel'].size()}: only whole "
            f"layers are dealt out; set 1, and data_parallel_size={mesh.size()}"
        )
    beside = len(list(module.parameters())) > len(list(network.parameters()))
    mixes.check_sharded(type(module), descent, network, own_weights=beside)
    sharding.shard(network, mesh["data_parallel"])


def check_data(batches: float) -> None:
    """Refuse processes that would wait for each other for ever.

    Raises:
        ValueError: they have different numbers of batches per epoch.
    """
    counts = processes.gather(batches)
    if len(set(counts)) > 1:
        raise ValueError(
            f"train_dataloader: the processes have {', '.join(map(str, counts))} batches per "
            "epoch, and would wait for each other for ever; give all as many, as a "
            "DistributedSampler does"
        )


def part_streams() -> None:
    """Each process draws dropout masks of its own; the first one's are those of a single process.

    Lightning seeds all alike, so that examples at the same place in their batches would always have
    the same mask.
    """
    if processes.rank():
        torch.manual_seed(apart(torch.initial_seed(), processes.rank()))


def backward(
    module: L.LightningModule,
    weights: Sequence[Tensor],
    number: Tensor | None,
    *,
    last: bool = False,
    retain_graph: bool = False,
) -> None:
    """Add this number's gradient to the weights' `.grad`; the last pass of a window reduces it.

    Args:
        module: whose trainer it is.
        weights: all that train.
        number: to be differentiated; None = all has been before.
        last: whether this completes the effective batch. The reduction goes on beside the pass.
        retain_graph: whether the graph is needed again.
    """
    strategy = module.trainer.strategy
    parallel = strategy if isinstance(strategy, ParallelStrategy) else None
    if number is not None:
        with nullcontext() if parallel is None or last else parallel.block_backward_sync():
            module.manual_backward(number, retain_graph=retain_graph)
    elif parallel is not None and last:
        _reduce(parallel, weights)


def average(weights: Sequence[Tensor]) -> None:
    """Average the weights' `.grad` over the processes, by one reduction per type of number.

    For loops that are not Lightning's. A weight without a gradient gets one of zeros.
    """
    if processes.count() == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for weight in weights:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        kinds.setdefault(weight.dtype, []).append(weight.grad)
    for grads in kinds.values():
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        parts = processes.add_up(flat).div_(processes.count()).split([g.numel() for g in grads])
        foreach.copy_(grads, [part.view_as(g) for part, g in zip(parts, grads, strict=True)])


def _reduce(strategy: Strategy, weights: Sequence[Tensor]) -> None:
    """A backward pass of zeros, which reduces what has been gathered before."""
    without = [weight for weight in weights if weight.grad is None]
    zeros = [weight.new_zeros(()).expand_as(weight) for weight in weights]
    strategy.pre_backward(list(weights))  # pyright: ignore[reportArgumentType]
    torch.autograd.backward(weights, zeros)
    for weight in without:
        weight.grad = None
