"""Products: how many a step takes, and how near it comes to what the device can multiply."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.subject import Subject


class Counted(L.Callback):
    """Floating-point operations of a training step, in products."""

    def __init__(self) -> None:
        self.total = 0
        self._counter = FlopCounterMode(display=False)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._counter.__enter__()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._counter.__exit__(None, None, None)
        self.total = self._counter.get_total_flops()


def flops_per_step(subject: Subject) -> int:
    """Of a forward and a full backward pass."""
    counter = FlopCounterMode(display=False)
    with _countable(), counter:
        subject.losses().mean().backward()
    subject.task.zero_grad()
    return counter.get_total_flops()


def relative_flops(module: L.LightningModule, subject: Subject) -> float:
    """Of a step of this module, relative to a forward and a full backward pass.

    No clock is in it, so no noise: what it exceeds the ideal passes by are products beside them.
    """
    few = replace(subject, batch={name: value[:4] for name, value in subject.batch.items()})
    counted = Counted()
    with _countable():
        few.trainer(1, counted).fit(module, few.loader(1))
    few.task.to(few.device)  # Lightning leaves it on the host
    return counted.total / flops_per_step(few)


def matmul_rate(subject: Subject, repeats: int = 5) -> float:
    """Operations per second in a large product, in the type that the network multiplies in."""
    size = 8192 if subject.device.type == "cuda" else 1024
    dtype = torch.bfloat16 if subject.precision == "bf16-mixed" else torch.float32
    a = torch.randn(size, size, device=subject.device, dtype=dtype)
    torch.mm(a, a)
    start = subject.now()
    for _ in range(repeats):
        torch.mm(a, a)
    return repeats * 2 * size**3 / (subject.now() - start)


def _countable() -> AbstractContextManager[Any]:
    """Uncompiled, and attention by plain products: the counter does not know every fused kernel."""
    stack = ExitStack()
    stack.enter_context(torch.compiler.set_stance("force_eager"))
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack
