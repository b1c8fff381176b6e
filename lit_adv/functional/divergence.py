"""How far two predictions for the same example lie apart: per example, from logits, in nats."""

from jaxtyping import Float
from torch import Tensor

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


def squared(p: Float[Tensor, " batch"], q: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """`(p - q)^2`, for regression: one prediction per example, in squared units of the target."""
    return (at_least_float32(p) - at_least_float32(q)).square()


def _log_probabilities(logits: Tensor) -> Tensor:
    return at_least_float32(logits).log_softmax(-1)
