"""Logistic regression in closed form, of Gaussian classes of one covariance (kexue.fm/8578)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Discriminant:
    """Gathers features in one pass, and solves for the head that they suggest.

    `w_i = S^-1 m_i`, `b_i = ln p_i - m_i^T S^-1 m_i / 2`, with the classes' means m_i and shares
    p_i, and S their pooled covariance `(1/n) sum_x x x^T - sum_i p_i m_i m_i^T`. It is linear
    discriminant analysis, and Bayes' rule where the classes are Gaussian. All sums are in float64
    and add up over parts of the data.

    Args:
        classes: how many.
        width: of the features.
        device: where the sums are.
    """

    def __init__(self, classes: int, width: int, device: torch.device | None = None) -> None:
        double = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros(classes, **double)
        """Examples of each class."""
        self.sum = torch.zeros(classes, width, **double)
        """Of the features of each class."""
        self.square = torch.zeros(width, width, **double)
        """Sum of `x x^T` over all examples."""

    def update(self, features: Float[Tensor, "batch width"], labels: Int[Tensor, " batch"]) -> None:
        """Take in some examples."""
        x = features.detach().double()
        self.count.index_add_(0, labels, torch.ones_like(x[:, 0]))
        self.sum.index_add_(0, labels, x)
        self.square += x.T @ x

    @property
    def parts(self) -> list[Tensor]:
        """All sums, which those of other parts of the data may be added to, in place."""
        return [self.count, self.sum, self.square]

    def merge(self, other: "Discriminant") -> None:
        """Take in all that another one has."""
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine += theirs

    def solve(
        self, shrinkage: float = 0.0
    ) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
        """Weight and bias of the head, in float64.

        Args:
            shrinkage: s in [0, 1]: `(1 - s) S + s tr(S) / width I` instead of S, which fewer
                examples than features, or features that say the same, leave without an inverse.

        Raises:
            ValueError: there were no examples, or the covariance has no inverse.
        """
        total = self.count.sum()
        if not total > 0:
            raise ValueError("a closed-form head needs examples; there were none")
        shares = self.count / total
        means = self.sum / self.count.clamp(min=1).unsqueeze(1)
        covariance = self.square / total - (shares.unsqueeze(1) * means).T @ means
        width = len(covariance)
        mean = covariance.diagonal().mean()
        eye = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
        covariance = (1 - shrinkage) * covariance + shrinkage * mean * eye
        root, failed = torch.linalg.cholesky_ex(covariance)
        if failed:
            raise ValueError(
                f"the covariance of {width} features over {int(total)} examples has no inverse; "
                "give a shrinkage above 0"
            )
        weight = torch.cholesky_solve(means.T, root).T
        # A class that never comes: half an example at the mean of nothing, instead of log 0.
        prior = (self.count.clamp(min=0.5) / total).log()
        return weight, prior - (weight * means).sum(1) / 2
