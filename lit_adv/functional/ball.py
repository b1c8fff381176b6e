"""Norm balls over the embeddings of a batch: directions, starts, ascent steps and projections.

A perturbation `delta` has the shape of the word embeddings, [batch, tokens, width]. Its size is
measured per example (over tokens and width) or per token (over width). Norms:

* `l2`: Euclidean; the steepest ascent is `g / ||g||_2`.
* `linf`: largest coordinate; the steepest ascent is `sign(g)`.
* `soft-inf`: the same ball as `linf`, but the step is `g / ||g||_inf`, which keeps the gradient's
  shape. It is what the codes of FreeLB (eb23701) and SMART (mt-dnn 3228e7c) call "inf".

All arithmetic is done in float32 at least, and nothing depends on an absolute epsilon.
"""

import math
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lit_adv.functional.precision import at_least_float32

Norm: TypeAlias = Literal["l2", "linf", "soft-inf"]
Per: TypeAlias = Literal["example", "token"]
NORMS: tuple[Norm, ...] = get_args(Norm)
PERS: tuple[Per, ...] = get_args(Per)


def unit(
    grad: Float[Tensor, "batch tokens width"], norm: Norm = "l2", per: Per = "example"
) -> Float[Tensor, "batch tokens width"]:
    """Steepest-ascent direction of size one; exactly zero where the gradient is zero.

    The gradient is first scaled by its largest coordinate, so the direction neither overflows nor
    underflows. Scaling the gradient by a power of two does not change a bit of it, and scaling it
    by anything else only what rounding changes.

    >>> unit(torch.tensor([[[3e-30, 4e-30]]]))
    tensor([[[0.6000, 0.8000]]])
    """
    grad = at_least_float32(grad)
    if norm == "linf":
        return torch.where(grad.isnan(), grad, grad.sign())  # sign(NaN) would be 0

    largest = _largest(grad, per)
    scaled = grad / torch.where(largest > 0, largest, 1)

    if norm == "l2":
        # The largest coordinate of `scaled` is 1, so the length is at least 1 unless all are 0.
        return scaled / _length(scaled, per).clamp(min=1)
    return scaled


def project(
    delta: Float[Tensor, "batch tokens width"],
    radius: float | None,
    norm: Norm = "l2",
    per: Per = "example",
) -> Float[Tensor, "batch tokens width"]:
    """Nearest point of the ball of this radius; `None` or inf = no limit, 0 = no perturbation.

    >>> project(torch.tensor([[[3.0, 4.0]]]), radius=1.0)
    tensor([[[0.6000, 0.8000]]])
    """
    delta = at_least_float32(delta)
    if radius is None or math.isinf(radius):
        return delta
    if norm != "l2":
        return delta.clamp(-radius, radius)
    size = lengths(delta, norm, per)
    return torch.where(size > radius, unit(delta, norm, per) * radius, delta)


@torch.no_grad()
def ascend(
    delta: Float[Tensor, "batch tokens width"],
    grad: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"],
    step_size: float,
    radius: float | None = None,
    norm: Norm = "l2",
    per: Per = "example",
) -> Float[Tensor, "batch tokens width"]:
    """One projected step of length `step_size` uphill: `Proj(delta + step_size * unit(grad))`.

    Only the tokens of the mask move, and only they count for the direction's length. An example
    whose gradient is not finite is left unperturbed. The result is a new leaf: no gradient flows
    through the ascent.
    """
    real = mask.unsqueeze(-1)
    grad = torch.where(real, grad, 0)
    moved = project(delta + step_size * unit(grad, norm, per), radius, norm, per)
    # A step along a gradient that overflowed would put NaN into the network.
    return torch.where(grad.isfinite().all(dim=(1, 2), keepdim=True), moved, 0)


@torch.no_grad()
def sample(
    mask: Bool[Tensor, "batch tokens"],
    width: int,
    size: float,
    norm: Norm = "l2",
    per: Per = "example",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch tokens width"]:
    """Uniform noise inside the ball of this size; zero where the mask is.

    `l2`: `U(-1, 1) * size / sqrt(n)`, where n is the number of perturbed coordinates of the example
    (or token), so `||delta|| <= size` and `E ||delta||^2 = size^2 / 3`. `linf`: `U(-size, size)`.
    """
    noise = at_least_float32(torch.empty(*mask.shape, width, device=mask.device))
    noise.uniform_(-1, 1, generator=generator)
    real = mask.unsqueeze(-1)
    if norm != "l2":
        return torch.where(real, noise * size, 0)

    coordinates = real.sum(dim=_axes(per), keepdim=True) * width
    return torch.where(real, noise * size / coordinates.clamp(min=1).sqrt(), 0)


@torch.no_grad()
def gaussian(
    mask: Bool[Tensor, "batch tokens"],
    width: int,
    std: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch tokens width"]:
    """Normal noise of this standard deviation in every coordinate; zero where the mask is."""
    noise = at_least_float32(torch.empty(*mask.shape, width, device=mask.device))
    noise.normal_(generator=generator)
    return torch.where(mask.unsqueeze(-1), noise * std, 0)


def lengths(
    delta: Float[Tensor, "batch tokens width"], norm: Norm = "l2", per: Per = "example"
) -> Float[Tensor, "batch _ _"]:
    """Size of each example's (or token's) perturbation, in the norm, with reduced axes kept.

    >>> lengths(torch.tensor([[[3.0, 4.0]]]))
    tensor([[[5.]]])
    """
    delta = at_least_float32(delta)
    largest = _largest(delta, per)
    if norm != "l2":
        return largest
    return largest * _length(delta / torch.where(largest > 0, largest, 1), per)


def _axes(per: Per) -> tuple[int, ...]:
    return (1, 2) if per == "example" else (2,)


def _largest(x: Tensor, per: Per) -> Tensor:
    return x.abs().amax(dim=_axes(per), keepdim=True)


def _length(x: Tensor, per: Per) -> Tensor:
    return torch.linalg.vector_norm(x, dim=_axes(per), keepdim=True)
