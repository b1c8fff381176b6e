"""Largest singular values, by power iteration: of what is known only by its products.

The iteration comes from below: what it returns never exceeds the true value but for rounding, and
lies under it by what the tolerance leaves. A bound that divides by it is too high by as much.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lit_adv.functional.precision import at_least_float32

FEWEST = 10
"""Iterations before the tolerance is asked: an unlucky start stays on a lower singular value."""


def power_iteration(
    jvp: Callable[[Tensor], Tensor],
    vjp: Callable[[Tensor], Tensor],
    start: Float[Tensor, "batch ..."],
    *,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Float[Tensor, " batch"]:
    """`sigma_max(A_b)` of a map per example, by `v <- A^T A v / ||A^T A v||` and `||A v||`.

    The host waits for the tolerance, once per iteration.

    Args:
        jvp: `v -> A v`, from [batch, *shape] to [batch, ...]; each row by its own A.
        vjp: `u -> A^T u`, back again.
        start: v at first, of any length but 0, and not orthogonal to what is looked for.
        iterations: at most so many.
        tolerance: ends when no value has risen by more than this share of itself.

    >>> matrix = torch.diag(torch.tensor([3.0, 1.0]))
    >>> power_iteration(lambda v: v @ matrix.T, lambda u: u @ matrix, torch.ones(1, 2))
    tensor([3.])
    """
    v = _unit(start)
    sigma = v.new_zeros(len(v))
    for done in range(iterations):
        u = jvp(v)
        before, sigma = sigma, _length(u)
        if done >= FEWEST and bool((sigma - before <= tolerance * sigma).all()):
            break
        v = _unit(vjp(u))
    return sigma


def jacobian(
    outputs: Float[Tensor, "batch ..."],
    inputs: Float[Tensor, "batch ..."],
    *,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Float[Tensor, " batch"]:
    """`sigma_max(d outputs_b / d inputs_b)` of every example, from the graph between them.

    `J v` is the derivative of `J^T u` by u, so the graph is differentiated twice: it must have been
    made by operations that can be (attention by plain products). It is kept. Examples must not
    depend on one another.

    Args:
        outputs: as computed from the inputs.
        inputs: with `requires_grad`.
        iterations: see power_iteration.
        tolerance: see power_iteration.

    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> jacobian(x * torch.tensor([3.0, 1.0]), x)
    tensor([3.])
    """
    none = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, inputs, none, create_graph=True)  # J^T u at u = 0

    def jvp(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, none, v.to(pulled.dtype), retain_graph=True)[0]

    def vjp(u: Tensor) -> Tensor:
        return torch.autograd.grad(outputs, inputs, u, retain_graph=True)[0]

    # Of its own stream: nobody's dropout masks move.
    stream = torch.Generator().manual_seed(0)
    start = torch.randn(inputs.shape, generator=stream, dtype=inputs.dtype).to(inputs.device)
    return power_iteration(jvp, vjp, start, iterations=iterations, tolerance=tolerance)


def _unit(x: Tensor) -> Tensor:
    x = at_least_float32(x)
    length = _length(x).view(-1, *[1] * (x.ndim - 1))
    return x / torch.where(length > 0, length, 1)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(at_least_float32(x).flatten(1), dim=1)
