"""Fisher information of weights, from the gradients of single examples."""

from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lit_adv import processes
from lit_adv.functional.drop_token import COLUMNS
from lit_adv.standstill import evaluating
from lit_adv.tasks.per_token import PerToken
from lit_adv.tasks.task import Batch, Task


def diagonal(
    task: Task,
    weights: Mapping[str, Tensor],
    batches: Iterable[Batch],
    examples: int | None = None,
) -> dict[str, Tensor]:
    """`F_i = (1/n) sum_j (d l_j / d theta_i)^2`, in float32 at least.

    The square of a batch's mean gradient would be another quantity: the gradients of its examples
    cancel out. So the examples pass one by one, without their padding. Dropout is off and
    gradients in `.grad` stay as they are. Several processes score the examples of each.

    Args:
        task: the network and its losses.
        weights: the weights to score, by name.
        batches: training batches of this process.
        examples: no more than so many examples, of all processes; None = all.

    Returns:
        The scores, by name, each of its weight's shape.
    """
    scores = {
        name: torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32))
        for name, w in weights.items()
    }
    rank, count = processes.rank(), processes.count()
    part = None if examples is None else -(-(examples - rank) // count)
    some = tqdm(
        islice(_one_by_one(batches, isinstance(task, PerToken)), part),
        "Fisher information",
        part,
        leave=False,
        disable=True if rank else None,
    )
    seen = next(iter(scores.values())).new_zeros(())
    if not task.separable:
        raise ValueError(
            f"mask=child_d: an example of {type(task).__name__} has no loss of its own to score "
            "weights by; choose mask=child_f"
        )
    with evaluating(task):
        for example in some:
            loss = task.losses(task(example), example).sum()
            grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for score, grad in zip(scores.values(), grads, strict=True):
                if grad is not None:
                    score.addcmul_(grad.to(score.dtype), grad.to(score.dtype))
            seen += 1
    processes.add_up(seen)
    return {name: processes.add_up(score) / seen.clamp(min=1) for name, score in scores.items()}


def _one_by_one(batches: Iterable[Batch], labels_tokens: bool) -> Iterable[Batch]:
    for batch in batches:
        tensors = {name: v for name, v in batch.items() if isinstance(v, Tensor)}
        mask = tensors.get("attention_mask")  # images have none
        real = None if mask is None or mask.ndim != 2 else mask.bool()
        cut = (*COLUMNS, "labels") if labels_tokens else COLUMNS
        for row in range(len(next(iter(tensors.values())))):
            one = {name: value[row : row + 1] for name, value in tensors.items()}
            if real is not None:
                one |= {name: one[name][:, real[row]] for name in cut if name in one}
            yield one
