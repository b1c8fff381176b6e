"""InfoNCE and FlatNCE: closed forms, their relation, and what rounding does to either."""

import pytest
import torch
from torch import Tensor

from lit_adv.functional.contrast import flat_nce, info_nce

ROWS, OTHERS = 5, 7


def _scores(seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(ROWS, OTHERS, generator=stream, dtype=torch.float64)
    return scores.requires_grad_(), torch.randint(0, OTHERS, (ROWS,), generator=stream)


def _xi(scores: Tensor, positive: Tensor) -> Tensor:
    """By a loop over the negatives."""
    values = []
    for row, mine in enumerate(positive.tolist()):
        others = [scores[row, i] - scores[row, mine] for i in range(OTHERS) if i != mine]
        values.append(torch.stack(others).exp().sum())
    return torch.stack(values)


def test_values_are_those_of_the_formulas():
    scores, positive = _scores()
    xi = _xi(scores, positive)
    torch.testing.assert_close(info_nce(scores, positive), (1 + xi).log())
    torch.testing.assert_close(flat_nce(scores, positive), xi.log())


def test_flat_has_the_gradient_of_the_papers_form_whose_value_is_one():
    scores, positive = _scores()
    xi = _xi(scores, positive)
    (paper,) = torch.autograd.grad((xi / xi.detach()).sum(), scores)
    (ours,) = torch.autograd.grad(flat_nce(scores, positive).sum(), scores)
    torch.testing.assert_close(ours, paper)


def test_info_nce_is_flat_nce_damped_by_xi():
    scores, positive = _scores()
    xi = _xi(scores, positive).detach()
    (flat,) = torch.autograd.grad(flat_nce(scores, positive).sum(), scores)
    (info,) = torch.autograd.grad(info_nce(scores, positive).sum(), scores)
    torch.testing.assert_close(info, (xi / (1 + xi)).unsqueeze(1) * flat)


def test_the_positive_is_pulled_by_one_and_the_negatives_share_one():
    """Where the positive stays in the sum, this fails: it is InfoNCE then."""
    scores, positive = _scores()
    (flat,) = torch.autograd.grad(flat_nce(scores, positive).sum(), scores)
    mine = torch.arange(OTHERS) == positive.unsqueeze(1)
    torch.testing.assert_close(flat[mine], -torch.ones(ROWS).double())
    torch.testing.assert_close(flat.masked_fill(mine, 0).sum(1), torch.ones(ROWS).double())
    kept = torch.logsumexp(scores * ~mine, 1) - scores[mine]  # a factor of zero
    (wrong,) = torch.autograd.grad(kept.sum(), scores)
    assert not torch.allclose(wrong, flat)


@pytest.mark.parametrize("margin", [10.0, 40.0, 80.0])
def test_flat_nces_gradient_survives_margins_at_which_info_nces_is_gone(margin: float):
    scores = torch.tensor([[margin, 0.0, -1.0]], requires_grad=True)
    positive = torch.tensor([0])
    (flat,) = torch.autograd.grad(flat_nce(scores, positive).sum(), scores)
    (info,) = torch.autograd.grad(info_nce(scores, positive).sum(), scores)
    assert flat[0, 0] == -1 and flat.isfinite().all()
    torch.testing.assert_close(flat[0, 1:].sum(), torch.tensor(1.0))
    if margin > 20:  # the margin's exponential is below float32's rounding of one
        assert info[0, 0] == 0


def test_neither_changes_when_a_row_is_shifted():
    scores, positive = _scores()
    shifted = scores + 5 * torch.arange(ROWS).unsqueeze(1)
    for loss in (info_nce, flat_nce):
        torch.testing.assert_close(loss(shifted, positive), loss(scores, positive))


@pytest.mark.parametrize("loss", [info_nce, flat_nce])
def test_gradients_are_those_of_finite_differences(loss):
    scores, positive = _scores()
    assert torch.autograd.gradcheck(lambda s: loss(s, positive), (scores,))


@pytest.mark.parametrize("loss", [info_nce, flat_nce])
def test_without_negatives_there_is_nothing_to_learn(loss):
    """As in an epoch's last batch, if it has one example."""
    scores = torch.full((1, 1), 20.0, requires_grad=True)
    value = loss(scores, torch.tensor([0]))
    (grad,) = torch.autograd.grad(value.sum(), scores)
    assert value.item() == 0 and grad.item() == 0


def test_half_precision_scores_are_compared_in_float32():
    scores, positive = _scores()
    half = scores.detach().bfloat16()
    for loss in (info_nce, flat_nce):
        assert torch.equal(loss(half, positive), loss(half.float(), positive))
