"""Parts of a mean loss: by brute force, by hand, against torchmetrics."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from testbed import close, same
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from lit_adv.functional import loss_split


def made(count: int = 200, classes: int = 3, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits and labels, of which some more than by chance are right."""
    stream = torch.Generator().manual_seed(count)
    labels = torch.randint(0, classes, (count,), generator=stream)
    logits = torch.randn(count, classes, generator=stream, dtype=torch.float64)
    return sharpness * (logits + F.one_hot(labels, classes)), labels


def test_every_example_has_its_loss_its_outcome_and_its_confidence():
    logits, labels = made(40)
    losses, right, confidence = loss_split.examples(logits, labels)
    for i, label in enumerate(labels.tolist()):
        powers = [math.exp(z) for z in logits[i].tolist()]
        odds = [power / sum(powers) for power in powers]
        assert float(losses[i]) == pytest.approx(-math.log(odds[label]), rel=1e-12)
        assert bool(right[i]) == (odds[label] == max(odds))
        assert float(confidence[i]) == pytest.approx(max(odds), rel=1e-12)
    assert 0 < right.sum() < 40


def test_half_precision_is_of_the_network_only():
    logits, labels = torch.tensor([[4.0, 0.0]], dtype=torch.bfloat16), torch.tensor([0])
    losses, _, confidence = loss_split.examples(logits, labels)
    assert float(losses) == pytest.approx(math.log1p(math.exp(-4.0)), rel=1e-5)
    assert float(confidence) == pytest.approx(1 / (1 + math.exp(-4.0)), rel=1e-6)


def test_right_and_wrong_parts_are_sums_over_all_examples_and_add_up_to_the_mean():
    losses, right, _ = loss_split.examples(*made())
    of_right, of_wrong = loss_split.by_outcome(losses, right)
    pairs = list(zip(losses.tolist(), right.tolist(), strict=True))
    assert float(of_right) == pytest.approx(sum(x for x, ok in pairs if ok) / 200, rel=1e-13)
    assert float(of_wrong) == pytest.approx(sum(x for x, ok in pairs if not ok) / 200, rel=1e-13)
    close(of_right + of_wrong, losses.mean())


@pytest.mark.parametrize("ok", [True, False])
def test_where_all_are_right_or_all_wrong_one_part_is_the_whole(ok: bool):
    losses = torch.tensor([1.0, 2.0, 4.5])
    parts = loss_split.by_outcome(losses, torch.tensor([ok] * 3))
    assert [float(part) for part in parts] == ([2.5, 0.0] if ok else [0.0, 2.5])


def test_of_an_infinite_loss_the_other_part_stays_finite():
    losses, right = torch.tensor([math.inf, 1.0]), torch.tensor([False, True])
    assert [float(part) for part in loss_split.by_outcome(losses, right)] == [0.5, math.inf]


# ---- the worst -----------------------------------------------------------------------------------


@pytest.mark.parametrize("worst", [0.01, 0.05, 0.123, 0.5, 0.99])
@pytest.mark.parametrize("count", [1, 7, 40, 100])
def test_the_worst_hold_what_their_losses_sum_up_to(worst: float, count: int):
    losses, _, _ = loss_split.examples(*made(count))
    left, held = Fraction(worst) * count, Fraction(0)
    for loss in sorted(map(Fraction, losses.tolist()), reverse=True):
        taken = min(Fraction(1), left)
        held, left = held + taken * loss, left - taken
    total = sum(map(Fraction, losses.tolist()))
    share = loss_split.share_of_worst(losses, worst)
    assert float(share) == pytest.approx(float(held / total), rel=1e-12)
    assert share >= worst - 1e-12


@pytest.mark.parametrize("loss", [0.0, 0.7])
def test_of_equal_losses_the_worst_hold_as_much_as_all_others(loss: float):
    share = loss_split.share_of_worst(torch.full((30,), loss, dtype=torch.float64), 0.05)
    close(share, torch.tensor(0.05, dtype=torch.float64))


def test_one_example_may_hold_all():
    losses = torch.zeros(100)
    losses[31] = 4.0
    assert loss_split.share_of_worst(losses, 0.01) == 1.0
    assert loss_split.share_of_worst(losses, 0.005) == 0.5


# ---- confidence ----------------------------------------------------------------------------------


def test_histograms_count_what_falls_between_the_edges():
    _, right, confidence = loss_split.examples(*made())
    counts = torch.zeros(2, 15, dtype=torch.long)
    for sure, ok in zip(confidence.tolist(), right.tolist(), strict=True):
        counts[0 if ok else 1, int(sure * 15)] += 1
    same(loss_split.histogram(confidence, right), counts)
    assert (counts.sum(1) > 0).all()


def test_edges_belong_to_the_upper_bin_but_certainty_has_none_above():
    confidence = torch.tensor([0.2, 0.2 - 1e-9, 1.0], dtype=torch.float64)
    counts = loss_split.histogram(confidence, torch.tensor([True, True, False]))
    assert counts.nonzero().tolist() == [[0, 2], [0, 3], [1, 14]]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 50.0])  # of 50: many are certain to the last bit
def test_calibration_error_is_that_of_torchmetrics(classes: int, sharpness: float):
    logits, labels = made(300, classes, sharpness)
    _, right, confidence = loss_split.examples(logits, labels)
    wanted = multiclass_calibration_error(logits, labels, num_classes=classes, n_bins=15)
    same(loss_split.calibration_error(confidence, right), wanted)
    assert wanted > 0.01


def test_calibration_error_by_the_definition():
    _, right, confidence = loss_split.examples(*made())
    bins = [int(sure * 15) for sure in confidence.tolist()]
    error = 0.0
    for b in set(bins):
        inside = [i for i, where in enumerate(bins) if where == b]
        error += abs(sum(float(right[i]) - float(confidence[i]) for i in inside)) / 200
    assert float(loss_split.calibration_error(confidence, right)) == pytest.approx(error, rel=1e-5)


# ---- all figures ---------------------------------------------------------------------------------


def test_figures_do_not_depend_on_the_order_of_the_examples():
    losses, right, confidence = loss_split.examples(*made())
    one = loss_split.figures(losses, right, confidence, 0.05)
    other = loss_split.figures(losses.flip(0), right.flip(0), confidence.flip(0), 0.05)
    assert one == pytest.approx(other, rel=1e-6)
    assert one["confidence_wrong"] == pytest.approx(float(confidence[~right].mean()))
    assert one["confidence_right"] > one["confidence_wrong"]
    assert one["accuracy"] == float(right.double().mean())


def test_no_examples_have_no_mean_confidence_and_nan_is_not_swallowed():
    losses, right = torch.tensor([0.1, math.nan]), torch.tensor([True, True])
    row = loss_split.figures(losses, right, torch.tensor([0.9, 0.9]), 0.05)
    for name in ("loss_right", "loss_worst_share", "confidence_wrong"):
        assert math.isnan(row[name]), name
    assert row["loss_wrong"] == 0.0
