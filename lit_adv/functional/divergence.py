"""How far two predictions for the same example lie apart: per example, from logits, in nats."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from lit_adv.functional.precision import at_least_float32


def kl(
    p: Float[Tensor, "batch classes"], q: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """`KL(P || Q) = sum_c P_c (log P_c - log Q_c)`, with `P = softmax(p)`, `Q = softmax(q)`.

    >>> import torch
    >>> kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([0.])
    """
    log_p, log_q = _log_probabilities(p), _log_probabilities(q)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def symmetric_kl(
    p: Float[Tensor, "batch classes"], q: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """`KL(P || Q) + KL(Q || P) = sum_c (P_c - Q_c)(log P_c - log Q_c)`; no term is negative."""
    log_p, log_q = _log_probabilities(p), _log_probabilities(q)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def bernoulli_kl(
    p: Float[Tensor, "batch labels"], q: Float[Tensor, "batch labels"]
) -> Float[Tensor, " batch"]:
    """`KL(P || Q)` of independent yes and no, with `P_c = sigmoid(p_c)`: the mean over labels.

    >>> import torch
    >>> bernoulli_kl(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    tensor([0.])
    """
    p, q = at_least_float32(p), at_least_float32(q)
    yes = p.sigmoid() * (logsigmoid(p) - logsigmoid(q))
    no = (-p).sigmoid() * (logsigmoid(-p) - logsigmoid(-q))
    return (yes + no).mean(-1)


def symmetric_bernoulli_kl(
    p: Float[Tensor, "batch labels"], q: Float[Tensor, "batch labels"]
) -> Float[Tensor, " batch"]:
    """`KL(P || Q) + KL(Q || P) = mean_c (P_c - Q_c)(p_c - q_c)`; no term is negative."""
    p, q = at_least_float32(p), at_least_float32(q)
    return ((p.sigmoid() - q.sigmoid()) * (p - q)).mean(-1)


def cosine(
    p: Float[Tensor, "batch width"], q: Float[Tensor, "batch width"]
) -> Float[Tensor, " batch"]:
    """`1 - cos(p, q)`, for vectors of which the direction is what counts.

    As `||u - v||^2 / 2` of the unit vectors, which is not rounded away between near ones.
    """
    apart = normalize(at_least_float32(p), dim=-1) - normalize(at_least_float32(q), dim=-1)
    return apart.square().sum(-1) / 2


def squared(p: Float[Tensor, " batch"], q: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """`(p - q)^2`, for regression: one prediction per example, in squared units of the target."""
    return (at_least_float32(p) - at_least_float32(q)).square()


def _log_probabilities(logits: Tensor) -> Tensor:
    return at_least_float32(logits).log_softmax(-1)
