"""A mean loss taken apart: by right and wrong predictions, by the worst examples, by confidence."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from lit_adv.functional.precision import at_least_float32

BINS = 15
"""Bins of equal width that confidences between 0 and 1 fall into."""


def examples(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Cross-entropy in nats, whether the likeliest class is right, and the probability it has."""
    logits = at_least_float32(logits)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return losses, logits.argmax(-1) == labels, logits.softmax(-1).amax(-1)


def by_outcome(
    losses: Float[Tensor, " batch"], right: Bool[Tensor, " batch"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What right and wrong predictions add to the mean: `sum_right l_i / n`, `sum_wrong l_i / n`.

    >>> by_outcome(torch.tensor([0.1, 0.3, 2.0, 0.0]), torch.tensor([True, True, False, True]))
    (tensor(0.1000), tensor(0.5000))
    """
    return torch.where(right, losses, 0).mean(), torch.where(right, 0, losses).mean()


def share_of_worst(losses: Float[Tensor, " batch"], worst: float) -> Float[Tensor, ""]:
    """Share of the total loss that the `worst * n` largest losses hold, the last of them in part.

    At least `worst`, and as much where all losses are the same.

    >>> share_of_worst(torch.tensor([1.0, 6.0, 1.0, 2.0]), worst=0.25)
    tensor(0.6000)
    """
    ordered = losses.sort(descending=True).values
    places = torch.arange(len(losses), dtype=losses.dtype, device=losses.device)
    counted = (worst * len(losses) - places).clamp(0, 1)
    total = losses.sum()
    return torch.where(total == 0, worst, (counted * ordered).sum() / total)


def histogram(
    confidence: Float[Tensor, " batch"], right: Bool[Tensor, " batch"]
) -> Int[Tensor, "2 bins"]:
    """Numbers of right and of wrong predictions per bin `[b/15, (b+1)/15)`; the last one has 1 too.

    >>> histogram(torch.tensor([0.55, 1.0, 0.99]), torch.tensor([False, True, True])).nonzero()
    tensor([[ 0, 14],
            [ 1,  8]])
    """
    edges = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype, device=confidence.device)
    bins = torch.bucketize(confidence, edges[1:-1], right=True)
    return torch.stack([bins[chosen].bincount(minlength=BINS) for chosen in (right, ~right)])


def calibration_error(
    confidence: Float[Tensor, " batch"], right: Bool[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """`sum_b n_b / n |accuracy_b - confidence_b|` over 15 bins: Naeini et al., AAAI 2015.

    >>> calibration_error(torch.tensor([0.9, 0.9]), torch.tensor([True, False]))
    tensor(0.4000)
    """
    # In float32, as the metric of several classes: of two neighbouring bins it names the same one.
    return binary_calibration_error(
        confidence.float(), right.int(), n_bins=BINS, norm="l1", validate_args=False
    )


def figures(
    losses: Float[Tensor, " batch"],
    right: Bool[Tensor, " batch"],
    confidence: Float[Tensor, " batch"],
    worst: float,
) -> dict[str, float]:
    """All of these as numbers, by name; the mean confidence of no examples is NaN."""
    of_right, of_wrong = by_outcome(losses, right)
    values = {
        "loss_right": of_right,
        "loss_wrong": of_wrong,
        "loss_worst_share": share_of_worst(losses, worst),
        "confidence_right": confidence[right].mean(),
        "confidence_wrong": confidence[~right].mean(),
        "calibration": calibration_error(confidence, right),
        "accuracy": right.double().mean(),
    }
    return {name: float(value) for name, value in values.items()}
