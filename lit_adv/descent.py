"""Descent: how the weights descend, the same for every method."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers import get_scheduler

from lit_adv import better
from lit_adv.flood.flood import Flood
from lit_adv.flood.none import NoFlood
from lit_adv.masks.mask import Mask
from lit_adv.masks.none import NoMask
from lit_adv.proximal.none import NoProximal
from lit_adv.proximal.proximal import Proximal
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.updates.plain import Plain
from lit_adv.updates.update import Update

PLATEAU = "reduce_lr_on_plateau"

OptimizerFactory: TypeAlias = Callable[[list[dict[str, Any]]], Optimizer]


def adamw(
    groups: list[dict[str, Any]],
    lr: float = 2e-5,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), in its fused form where the device has one.

    Raises:
        ValueError: lr or weight_decay is negative.
    """
    at_least(0, "optimizer.lr", lr)
    at_least(0, "optimizer.weight_decay", weight_decay)
    devices = {weight.device.type for group in groups for weight in group["params"]}
    fused = devices <= {"cpu", "cuda", "mps", "xpu"}
    optimizer = torch.optim.AdamW(
        groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, fused=fused
    )
    # Else the loss scale of float16 is taken off within step(), and clipping comes too early.
    optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
    return optimizer


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """The weights that train: matrices in one group, biases and norms without decay in another."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2]},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@dataclass(kw_only=True)
class Schedule:
    """Learning-rate schedule, by the names of `transformers.get_scheduler`.

    Args:
        name: linear, cosine, constant, constant_with_warmup, reduce_lr_on_plateau, ...
        warmup: share of all steps during which the rate rises linearly from 0.
        interval: `step` or `epoch`; what one unit of `frequency` is.
        frequency: the schedule advances once per this many intervals.
        monitor: metric for reduce_lr_on_plateau, which needs interval=epoch.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    name: str = "linear"
    warmup: float = 0.06
    interval: Literal["step", "epoch"] = "step"
    frequency: int = 1
    monitor: str = "val/loss"

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"scheduler.warmup={self.warmup}: a share of the steps, in [0, 1)")
        one_of(("step", "epoch"), "scheduler.interval", self.interval)
        whole(1, "scheduler.frequency", self.frequency)
        if self.name == PLATEAU and self.interval != "epoch":
            raise ValueError("scheduler.name=reduce_lr_on_plateau: set scheduler.interval=epoch")

    def build(
        self, optimizer: Optimizer, total_steps: int, epochs: int
    ) -> LRScheduler | ReduceLROnPlateau:
        """The scheduler for a training of this many optimizer steps and epochs.

        Raises:
            ValueError: no such schedule.
        """
        units = (total_steps if self.interval == "step" else epochs) // self.frequency
        mode = "min" if better.less(self.monitor) else "max"
        plateau = {"mode": mode} if self.name == PLATEAU else None
        try:
            return get_scheduler(
                self.name,
                optimizer,
                num_warmup_steps=round(self.warmup * units),
                num_training_steps=max(1, units),
                scheduler_specific_kwargs=plateau,
            )
        except ValueError as error:
            raise ValueError(f"scheduler.name={self.name}: {error}") from error


@dataclass(kw_only=True)
class Descent:
    """How the weights descend.

    Args:
        optimizer: from parameter groups to an optimizer.
        schedule: of the learning rate.
        flood: which number the weights descend.
        proximal: what holds the weights near their past.
        update: how often, and from where, an effective batch is looked at before a step.
        mask: which weights move.
        accumulate_grad_batches: batches per optimizer step.
        gradient_clip_val: largest norm (or coordinate) of the gradient; None = unlimited.
        gradient_clip_algorithm: `norm` or `value`.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    optimizer: OptimizerFactory = field(default_factory=lambda: partial(adamw))
    schedule: Schedule = field(default_factory=Schedule)
    flood: Flood = field(default_factory=NoFlood)
    proximal: Proximal = field(default_factory=NoProximal)
    update: Update = field(default_factory=Plain)
    mask: Mask = field(default_factory=NoMask)
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"

    def __post_init__(self) -> None:
        whole(1, "accumulate_grad_batches", self.accumulate_grad_batches)
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise ValueError(
                f"gradient_clip_val={self.gradient_clip_val}: needs to be positive; null = no limit"
            )
        one_of(("norm", "value"), "gradient_clip_algorithm", self.gradient_clip_algorithm)
