"""How an input's gradient bounds the weights': kexue.fm/archives/8796, after arXiv:2111.15090.

A layer `z = W h + b` is a cut if the loss f of an example depends on its input x by way of z alone.
With `J = dh/dx` then `grad_x f = J^T W^T grad_z f`, and `grad_W f = grad_z f h^T`, so

    ||grad_x f||^2 * (1 + ||h||^2) / (||W||_2^2 ||J||_2^2)  <=  ||grad_W f||_F^2 + ||grad_b f||^2.

The fraction is the exchange rate between the two penalties. The inequality holds for single
examples: in the gradient of a batch's mean those of the weights cancel out, those of inputs do not.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import Node

from lit_adv.functional.precision import at_least_float32


class Terms(NamedTuple):
    """The inequality of every example, at one cut or summed over several."""

    input_norm: Tensor
    """`||grad_x f||`, [batch]."""
    weight_norm: Tensor
    """`(||grad_W f||_F^2 + ||grad_b f||^2)^(1/2)`, [batch]."""
    exchange_rate: Tensor
    """`(1 + ||h||^2) / (||W||_2^2 ||J||_2^2)`, without the 1 where there is no b, [batch]."""

    @property
    def ratio(self) -> Tensor:
        """Left side over right side, at most 1; NaN where both gradients are zero."""
        # Not of squares, which underflow where an example is all but learnt.
        return (self.input_norm / self.weight_norm * self.exchange_rate.sqrt()).square()

    @property
    def slack(self) -> Tensor:
        """`-log ratio`, at least 0, in nats."""
        return -self.ratio.log()


def terms(
    x_grad: Float[Tensor, "batch ..."],
    z_grad: Float[Tensor, "batch out"],
    h: Float[Tensor, "batch in"],
    weight: Float[Tensor, "out in"],
    jacobian_norm: Float[Tensor, " batch"],
    *,
    bias: bool = True,
) -> Terms:
    """The inequality at one layer, without any gradient of a weight.

    Args:
        x_grad: `grad_x f` of every example.
        z_grad: `grad_z f` of every example, at the layer's output.
        h: the layer's input.
        weight: W.
        jacobian_norm: `||dh/dx||_2` of every example.
        bias: whether there is a b.

    >>> eye, one = torch.eye(2), torch.ones(1)
    >>> x = torch.tensor([[3.0, 4.0]])
    >>> at = terms(x, x, x, eye, one)  # W = I at the very input: an equality
    >>> at.exchange_rate, at.ratio
    (tensor([26.]), tensor([1.]))
    """
    square = _norm(h).square() + (1 if bias else 0)
    width = torch.linalg.matrix_norm(at_least_float32(weight), ord=2) * jacobian_norm
    return Terms(_norm(x_grad), _norm(z_grad) * square.sqrt(), square / width.square())


def total(parts: list[Terms]) -> Terms:
    """The sum over several cuts of the same network: of exchange rates, and of squared norms."""
    input_norms, weight_norms, rates = (torch.stack(each) for each in zip(*parts, strict=True))
    return Terms(input_norms[0], torch.linalg.vector_norm(weight_norms, dim=0), rates.sum(0))


def reaches(loss: Node, x: Node, without: Node | None = None) -> bool:
    """Whether a graph leads from the loss to x at all, or also without passing a node.

    >>> x = torch.ones(1, requires_grad=True)
    >>> z = 2 * x
    >>> end = torch.autograd.graph.get_gradient_edge(x).node
    >>> [reaches(loss.grad_fn, end, z.grad_fn) for loss in (z.exp(), x + z.exp())]
    [False, True]
    """
    seen, ahead = {without}, [loss]
    while ahead:
        node = ahead.pop()
        if node is x:
            return True
        if node not in seen:
            seen.add(node)
            ahead.extend(step for step, _ in node.next_functions if step is not None)
    return False


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(at_least_float32(x).flatten(1), dim=1)
