"""Which parts make no sense together, said before training."""

import lightning as L
from torch import nn

from lit_adv import regions, standstill
from lit_adv.adapters import has_adapters
from lit_adv.descent import Descent
from lit_adv.tasks.task import Task
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.plain import Plain


def check(method: type, descent: Descent) -> None:
    """Refuse a mix of method and descent that would not do what its parts say.

    Args:
        method: its class, with `passes`.
        descent: how the weights descend.

    Raises:
        ValueError: there is no such mix; the line says why.
    """
    update, passes, name = descent.update, getattr(method, "passes", "several"), method.__name__
    kind = type(update).__name__
    if passes == "own steps":
        if not isinstance(update, Plain):
            raise ValueError(
                f"update={kind}: {name} steps several times per batch, each time by the gradient "
                "that moved its perturbation too; another look between them would belong to "
                "neither; choose update=plain"
            )
        if descent.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches={descent.accumulate_grad_batches}: {name} steps "
                "several times per batch, so a batch cannot be one of several; set 1"
            )
    if isinstance(update, Alternate) and descent.flood.acts:
        raise ValueError(
            f"flood={type(descent.flood).__name__}: with update=alternate both would turn steps "
            "uphill, and two turns make a descent; choose one of them"
        )
    if isinstance(update, GradientPenalty) and update.form == "exact":
        if passes != "one":
            raise ValueError(
                f"update.form=exact: {name} passes over a batch more than once, or differentiates "
                "twice itself; choose update.form=difference"
            )
        if descent.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches={descent.accumulate_grad_batches}: "
                "update.form=exact would keep the graphs of all these batches; choose "
                "update.form=difference"
            )


def check_compiled(method: type, descent: Descent, network: nn.Module) -> None:
    """Refuse what a compiled network cannot do.

    Args:
        method: its class, with `differentiates_twice`.
        descent: how the weights descend.
        network: the task's.

    Raises:
        ValueError: the method or the update differentiates twice.
    """
    if not regions.compiled(network):
        return
    why = "twice, which torch.compile cannot (aot_autograd does not support double backward)"
    if getattr(method, "differentiates_twice", False):
        raise ValueError(
            f"model.compile=true: {method.__name__} differentiates {why}; set model.compile=false"
        )
    update = descent.update
    if isinstance(update, GradientPenalty) and update.form == "exact":
        raise ValueError(
            f"model.compile=true: update.form=exact differentiates {why}; set model.compile=false, "
            "or update.form=difference"
        )


def check_separable(method: type, task: Task) -> None:
    """Refuse a method that needs each example's own loss, and its gradient, where there is none.

    Args:
        method: its class, with `separates_losses`.
        task: the network and its losses.

    Raises:
        ValueError: an example's loss depends on the others of its batch.
    """
    if not getattr(method, "separates_losses", False):
        return
    name, instead = method.__name__, "choose another method, such as pgd"
    if not task.separable:
        raise ValueError(
            f"{name}: needs the gradient of each example's own loss, and {type(task).__name__} "
            f"compares the examples of a batch; {instead}"
        )
    norms = (m for m in task.network.modules() if isinstance(m, standstill.BatchNorm))
    if any(norm.training for norm in norms):
        raise ValueError(
            f"{name}: needs the gradient of each example's own loss, which through batch norms "
            f"depends on the others; put these in evaluation mode for good, or {instead}"
        )


def check_module(module: L.LightningModule) -> None:
    """Refuse a module that is compiled itself.

    Raises:
        ValueError: it is; its steps, hooks and logs are no part of a graph.
    """
    if getattr(module, "_compiler_ctx", None) is not None:
        raise ValueError(
            f"torch.compile({type(module).__name__}): its steps, hooks and logs are no part of a "
            "graph; compile the network's layers: model.compile=true, or in code "
            "lit_adv.regions.prepare(network, compile=True)"
        )


def check_precision(descent: Descent, precision: str) -> None:
    """Refuse what a scaled loss would make wrong.

    Raises:
        ValueError: the update needs the size of the gradient, which float16 training scales.
    """
    update = descent.update
    by_size = isinstance(update, Backstitch) or (
        isinstance(update, GradientPenalty) and (update.of == "square" or update.form == "exact")
    )
    if precision == "16-mixed" and by_size:
        raise ValueError(
            f"trainer.precision={precision}: update={type(update).__name__} needs the gradient "
            "without the loss scale of float16; choose bf16-mixed"
        )


def check_processes(descent: Descent, count: int) -> None:
    """Refuse what the part of one process would make wrong.

    Raises:
        ValueError: the update needs the gradient of all processes before it is there.
    """
    update = descent.update
    if count > 1 and isinstance(update, GradientPenalty) and update.form == "exact":
        raise ValueError(
            f"update.form=exact: the norm would be that of one of {count} processes' gradients; "
            "choose update.form=difference"
        )


def check_sharded(method: type, descent: Descent, network: nn.Module, *, own_weights: bool) -> None:
    """Refuse what cannot do with a process's share of the weights.

    Args:
        method: its class, with `differentiates_twice` and `cuts_network`.
        descent: how the weights descend.
        network: the task's.
        own_weights: whether the method trains weights beside the network's.

    Raises:
        ValueError: a part of the training needs them whole.
    """
    name, mask = method.__name__, descent.mask
    twice = getattr(method, "differentiates_twice", False)
    reasons = {
        "the adapters of peft are not dealt out": has_adapters(network),
        f"{name} differentiates twice, which sharded weights do not allow": twice,
        f"{name} runs layers without the others": getattr(method, "cuts_network", False),
        "model.compile=true compiles layers with whole weights": regions.compiled(network),
        f"{name} trains weights beside the network's": own_weights,
        f"mask={type(mask).__name__} draws for whole weights": mask.acts,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"trainer.strategy=fsdp2: {reason}; choose trainer=ddp")
