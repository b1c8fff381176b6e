"""Model soups: Wortsman et al., ICML 2022, arXiv:2203.05482."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def average(members: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of each weight, taken in float64; of whole numbers (counters) the first member's.

    Raises:
        ValueError: a member has other weights than the first.
    """
    first = members[0]
    for number, member in enumerate(members[1:], start=2):
        shapes = [{name: tuple(t.shape) for name, t in each.items()} for each in (first, member)]
        odd = {n for n in shapes[0] | shapes[1] if shapes[0].get(n) != shapes[1].get(n)}
        if odd:
            name = sorted(odd)[0]
            there, here = shapes[1].get(name, "absent"), shapes[0].get(name, "absent")
            raise ValueError(
                f"checkpoint {number}: weights of another model: {name} is {there}, in the first "
                f"checkpoint {here}"
            )
    return {name: _mean([member[name] for member in members]) for name in first}


def greedy(
    members: Sequence[Weights], score: Callable[[Weights], float]
) -> tuple[dict[str, Tensor], list[int], list[float]]:
    """Members from the best to the worst, each kept if the mean with it is no worse.

    Args:
        members: weights of one architecture.
        score: more is better; on held-out data, not on the test set.

    Returns:
        The soup, the places of its members in the order they joined, and every member's own score.
    """
    scores = [score(member) for member in members]
    # A member without a score, NaN, would leave the others unsorted.
    known = [float("-inf") if math.isnan(score) else score for score in scores]
    order = sorted(range(len(members)), key=lambda i: -known[i])
    kept, best = order[:1], known[order[0]]
    for i in order[1:]:
        with_it = score(average([members[j] for j in [*kept, i]]))
        if with_it >= best:
            kept, best = [*kept, i], with_it
    return average([members[j] for j in kept]), kept, scores


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0]
    # One after the other: a stack of all members would be as large as all of them.
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor in tensors:
        total += tensor.double()
    return (total / len(tensors)).to(tensors[0].dtype)
