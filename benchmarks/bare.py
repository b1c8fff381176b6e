"""Bare: the passes over a batch and the optimizer's step, in PyTorch alone."""

from collections.abc import Callable, Collection
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.subject import Subject
from lit_adv.descent import adamw, decay_groups


class Bare:
    """Times each unit of a floor on the very network that the methods train.

    Args:
        subject: network and batch.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._weights = list(subject.network.parameters())
        # A rate of 0 takes as long, and the methods' weights stay where they are.
        self._optimizer = adamw(decay_groups(subject.network), lr=0.0)
        self._delta: Tensor | None = None

    def time(self, units: Collection[str], *, plain_attention: bool = False) -> dict[str, float]:
        """Seconds of each of these units; needs `.grad` empty, and leaves it so."""
        seconds: dict[str, float] = {}
        kernel = sdpa_kernel(SDPBackend.MATH) if plain_attention else nullcontext()
        # One autocast for all, as around a step in Lightning: it casts each weight once.
        with self._subject.autocast(), kernel:
            for unit in ("fresh", "adding"):
                if unit in units:
                    seconds[unit] = self._seconds(self._train)
            seconds["step"] = self._seconds(self._step)
            if "ascent" in units:
                seconds["ascent"] = self._frozen(self._ascend)
            if "inner" in units:
                seconds |= self._kept()
            if "double" in units:
                seconds["double"] = self._seconds(self._train_twice)
                self._optimizer.zero_grad()
            if "forward" in units:
                self._subject.network.eval()
                seconds["forward"] = self._seconds(torch.no_grad()(self._subject.losses))
                self._subject.network.train()
        return seconds

    def _seconds(self, call: Callable[[], object]) -> float:
        start = self._subject.now()
        call()
        return self._subject.now() - start

    def _train(self) -> None:
        self._subject.losses().mean().backward()

    def _step(self) -> None:
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        torch.clear_autocast_cache()
        self._optimizer.zero_grad()

    def _frozen(self, call: Callable[[], object]) -> float:
        for weight in self._weights:
            weight.requires_grad_(False)
        try:
            return self._seconds(call)
        finally:
            for weight in self._weights:
                weight.requires_grad_(True)

    def _ascend(self) -> None:
        losses, delta = self._perturbed()
        torch.autograd.grad(losses.sum(), delta)

    def _kept(self) -> dict[str, float]:
        losses, delta = self._perturbed()
        total, mean = losses.sum(), losses.mean()
        inner = self._seconds(lambda: torch.autograd.grad(total, delta, retain_graph=True))
        backward = self._seconds(mean.backward)
        self._optimizer.zero_grad()
        return {"inner": inner, "backward": backward}

    def _train_twice(self) -> None:
        losses, delta = self._perturbed()
        (grad,) = torch.autograd.grad(losses.sum(), delta, create_graph=True)
        (losses + grad.square().sum((1, 2))).mean().backward()

    def _perturbed(self) -> tuple[Tensor, Tensor]:
        embeddings = self._subject.task.embeddings
        shape = (*self._subject.batch["input_ids"].shape, self._subject.task.width)
        self._delta = torch.zeros(shape, device=self._subject.device, requires_grad=True)
        handle = embeddings.register_forward_hook(self._add)
        try:
            return self._subject.losses(), self._delta
        finally:
            handle.remove()

    def _add(self, module: nn.Module, args: object, output: Tensor) -> Tensor:
        return output if self._delta is None else output + self._delta.to(output.dtype)
