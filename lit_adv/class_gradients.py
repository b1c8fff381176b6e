"""The gradient of each class in a batch: of the mean loss over its examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_adv import processes, sharding, standstill
from lit_adv.functional.precision import at_least_float32
from lit_adv.nested import some

Losses = Callable[[Any], Tensor]
"""From a batch to the loss of each of its examples, [examples]."""


def examples_of(labels: Tensor | None, count: int) -> dict[int, list[int]]:
    """The rows of each class, in the order of classes; what is no class is all of one.

    Args:
        labels: [examples]; None, numbers, or several per example = there are no classes.
        count: examples.
    """
    if labels is None or labels.is_floating_point() or labels.ndim != 1:
        return {0: list(range(count))}
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        rows.setdefault(label, []).append(row)
    return dict(sorted(rows.items()))


def by_passes(
    losses: Losses,
    batch: Any,
    rows: Mapping[int, list[int]],
    weights: Sequence[Tensor],
    scale: float = 1.0,
) -> Iterator[tuple[int, list[Tensor]]]:
    """Class by class, a forward and a backward pass over its examples: in all, one over the batch.

    Nothing is left in `.grad`, and no reduction over processes is set off.

    Args:
        losses: of the examples.
        batch: whole.
        rows: of each class.
        weights: those to differentiate by.
        scale: of the loss, where its gradient would vanish in float16; taken off again.

    Raises:
        ValueError: the losses are not those of single examples, or the batch cannot be cut.
    """
    count = sum(map(len, rows.values()))
    for label, mine in rows.items():
        part = batch if len(mine) == count else some(batch, mine, count)
        yield label, gradient(_of(losses, part, len(mine)).mean(), weights, scale)


def _of(losses: Losses, part: Any, count: int) -> Tensor:
    """The losses of so many examples.

    Raises:
        ValueError: there are not as many.
    """
    values = losses(part)
    if values.shape != (count,):
        raise ValueError(
            f"losses {list(values.shape)} of {count} examples: needs one for each; batches are cut "
            "through mappings, lists and tuples, down to tensors with a row for each example"
        )
    return values


def gradient(
    loss: Tensor, weights: Sequence[Tensor], scale: float = 1.0, *, keep_graph: bool = False
) -> list[Tensor]:
    """`d loss / d weights`; zeros where there is none.

    Args:
        loss: a number.
        weights: those to differentiate by.
        scale: of the loss, where its gradient would vanish in float16; taken off again.
        keep_graph: whether the graph is needed again.
    """
    grads = torch.autograd.grad(
        loss * scale if scale != 1 else loss,
        weights,
        retain_graph=keep_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return [grad / scale for grad in grads] if scale != 1 else list(grads)


def by_joint_passes(
    losses: Losses,
    batch: Any,
    rows: Mapping[int, list[int]],
    weights: Sequence[Tensor],
    trained: Sequence[Tensor],
    scale: float = 1.0,
) -> Iterator[tuple[int, list[Tensor]]]:
    """The same where weights are dealt out to processes: their batches are one, each has its share.

    All take part in the passes of all classes, for each pass puts the weights together.

    Args:
        losses: of the examples.
        batch: of this process.
        rows: of each class.
        weights: those to differentiate by.
        trained: all that a backward pass may reach; their `.grad` is left as it was.
        scale: of the loss, where its gradient would vanish in float16; taken off again.
    """
    everywhere = processes.gather({label: len(mine) for label, mine in rows.items()})
    for label in sorted({label for counts in everywhere for label in counts}):
        mine = rows.get(label, [])
        count = sum(map(len, rows.values()))
        values = _of(losses, some(batch, mine or [0], count), len(mine or [0]))
        examples = sum(counts.get(label, 0) for counts in everywhere)
        # The backward pass averages over the processes.
        factor = scale * processes.count() / examples if mine else 0.0
        with _no_grads(trained):
            (factor * values.sum()).backward()
            grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        yield label, [part / scale if scale != 1 else part for part in sharding.local(grads)]


@contextmanager
def _no_grads(weights: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block `.grad` begins empty; at its end it is what it was."""
    kept = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        yield
    finally:
        for weight, grad in zip(weights, kept, strict=True):
            weight.grad = grad


def of_head(
    losses: Losses, batch: Any, rows: Mapping[int, list[int]], head: nn.Linear, network: nn.Module
) -> Iterator[tuple[int, list[Tensor]]]:
    """Of the last layer alone, by a forward pass: `mean_i r_i [h_i, 1]^T`, r_i = d l_i / d z_i.

    For cross-entropy r = softmax(z) - e_y, and `<g, g'> = <r, r'> (1 + <h, h'>)`. Where the layer
    answers for several tokens of an example, these are added up.

    Args:
        losses: of the examples.
        batch: whole.
        rows: of each class.
        head: the layer; z are its answers, h what it is given.
        network: whatever the losses pass through.

    Raises:
        ValueError: the losses do not pass through the layer once, example by example.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def cut(_: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        # In half precision the slopes of well-learnt examples would vanish.
        seen.append((given[0].detach(), at_least_float32(answer.detach()).requires_grad_()))
        return seen[-1][1]

    handle = head.register_forward_hook(cut)
    try:
        with standstill.still(network.parameters()):  # there is a graph behind the cut only
            values = _of(losses, batch, sum(map(len, rows.values())))
    finally:
        handle.remove()
    if len(seen) != 1 or len(seen[0][0]) != len(values):
        raise ValueError(
            f"parameters=head: the losses pass through the last linear layer {len(seen)} times, "
            f"with {[len(hidden) for hidden, _ in seen]} rows for {len(values)} examples; they "
            "need to once, a row (or rows of tokens) for each; give a regular expression instead"
        )
    hidden, answers = seen[0]
    (slopes,) = torch.autograd.grad(values.sum(), answers)
    for label, mine in rows.items():
        r, h = (part[mine].reshape(-1, part.shape[-1]) for part in (slopes, hidden))
        bias = [] if head.bias is None else [r.sum(0) / len(mine)]
        with torch.autocast(r.device.type, enabled=False):
            weight = r.T @ h.to(r.dtype) / len(mine)
        yield label, [weight, *bias]
