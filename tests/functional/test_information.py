"""Bounds on information against pairs and ranks counted one by one."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor

from lit_adv.functional.information import bottleneck, contrast, rank

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)
closely = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)


def _stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _words(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_stream(seed), dtype=torch.float64)


MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]]).bool()


# ---- bottleneck ----------------------------------------------------------------------------------


def test_words_that_are_all_the_same_have_no_information_and_no_gradient():
    words = _words(1, 1, 5).expand(3, 4, 5).clone().requires_grad_()
    bound = bottleneck(words, MASK, _stream())
    exactly(bound, torch.zeros((), dtype=torch.float64))
    exactly(torch.autograd.grad(bound, words), (torch.zeros_like(words),))


def test_half_the_square_distance_of_two_words_counts_as_often_as_they_meet():
    one, other = _words(2, 3)
    words = torch.stack([one, other]).repeat(1, 20000, 1).view(2, -1, 3)
    bound = bottleneck(words, torch.ones(words.shape[:2]).bool(), _stream())
    distance = (one - other).square().sum() / 2
    deviation = 0.5 / math.sqrt(words.shape[0] * words.shape[1])  # of a coin that many times
    assert bound / distance == pytest.approx(0.5, abs=4 * deviation)


def test_on_average_it_is_the_mean_over_all_ordered_pairs_of_real_words():
    words = _words(3, 4, 5)
    real = words[MASK]
    pairs = (real.unsqueeze(0) - real.unsqueeze(1)).square().sum(-1) / 2
    stream, draws = _stream(), 2000
    values = torch.stack([bottleneck(words, MASK, stream) for _ in range(draws)])
    deviation = float(values.std()) / math.sqrt(draws)
    assert float(values.mean()) == pytest.approx(float(pairs.mean()), abs=4 * deviation)
    # Every pair may come, no less than the others.
    expected = ((pairs.square().mean(1) - pairs.mean(1).square()).sum()).sqrt() / len(real)
    torch.testing.assert_close(values.std(), expected, rtol=0.1, atol=0)


def test_padding_is_in_no_pair():
    words = _words(3, 4, 5)
    bounds = []
    for filled in (0.0, 1e9):
        words[~MASK] = filled
        words.requires_grad_()
        bounds.append(bottleneck(words, MASK, _stream()))
        (grad,) = torch.autograd.grad(bounds[-1], words)
        assert not grad[~MASK].any() and grad[MASK].any()
        # Moving all words together changes no distance.
        torch.testing.assert_close(grad.sum((0, 1)), torch.zeros(5).double(), rtol=0, atol=1e-14)
        words = words.detach().clone()
    exactly(*bounds)


def test_both_words_of_a_pair_have_a_gradient():
    words = _words(3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: bottleneck(w, MASK, _stream(3)), words)


def test_pairs_come_from_the_stream_given_and_leave_the_others_alone():
    words, before = _words(3, 4, 5), torch.get_rng_state()
    exactly(bottleneck(words, MASK, _stream(1)), bottleneck(words, MASK, _stream(1)))
    assert bottleneck(words, MASK, _stream(1)) != bottleneck(words, MASK, _stream(2))
    exactly(torch.get_rng_state(), before)


def test_without_any_real_word_it_is_nothing():
    words = _words(3, 4, 5).requires_grad_()
    bound = bottleneck(words, torch.zeros_like(MASK), _stream())
    exactly(bound, torch.zeros((), dtype=torch.float64))
    exactly(torch.autograd.grad(bound, words), (torch.zeros_like(words),))


def test_half_precision_does_not_overflow():
    words = 200 * _words(3, 4, 50).half()
    bound = bottleneck(words, MASK, _stream())
    assert bound.dtype == torch.float32 and bound > 65504
    closely(bound, bottleneck(words.float(), MASK, _stream()))


# ---- ranks ---------------------------------------------------------------------------------------

SHARES = [("0", "1"), ("0.5", "0.9"), ("0.3", "0.7"), ("0", "0.1"), ("0.45", "0.55")]
SHARES += [("0.28", "0.56")]  # times 25 a little more than 7 and 14, in binary fractions


def _exact(share: str, count: int) -> int:
    return math.ceil(Fraction(share) * count)


@pytest.mark.parametrize("low, high", SHARES)
def test_the_words_are_those_whose_sizes_rank_between_the_shares(low: str, high: str):
    tokens = 30
    sizes = _words(tokens + 1, tokens).abs()
    mask = torch.arange(tokens) < torch.arange(tokens + 1).unsqueeze(1)
    shuffled = torch.stack([row[torch.randperm(tokens, generator=_stream())] for row in mask])
    places, chosen = rank(sizes, shuffled, float(low), float(high), tokens)
    for example in range(tokens + 1):
        real = shuffled[example].nonzero().flatten().tolist()
        ordered = sorted(real, key=lambda t: float(sizes[example, t]))
        expected = ordered[_exact(low, len(real)) : _exact(high, len(real))]
        assert places[example][chosen[example]].tolist() == expected


def test_neither_the_order_of_the_tokens_nor_padding_changes_the_choice():
    sizes, mask = _words(3, 10).abs(), torch.arange(10) < torch.tensor([[10], [7], [4]])
    order = torch.randperm(10, generator=_stream(1))
    places, chosen = rank(sizes, mask, 0.2, 0.8, 8)
    moved, still = rank(sizes[:, order], mask[:, order], 0.2, 0.8, 8)
    exactly(still, chosen)
    exactly(order[moved][chosen], places[chosen])
    sizes[~mask] = -1.0
    exactly(rank(sizes, mask, 0.2, 0.8, 8)[0][chosen], places[chosen])


def test_no_more_words_come_than_asked_for():
    places, chosen = rank(_words(2, 10).abs(), torch.ones(2, 10).bool(), 0.0, 1.0, 3)
    assert places.shape == chosen.shape == (2, 3) and chosen.all()


# ---- contrast ------------------------------------------------------------------------------------


def _reference_contrast(scores: Tensor, chosen: Tensor) -> Tensor:
    """Word t of example b picks its own sentence: `log softmax + log B`, the mean of the chosen."""
    size = len(scores)
    terms = [
        scores[b, t].log_softmax(0)[b] + math.log(size)
        for b in range(size)
        for t in range(scores.shape[1])
        if chosen[b, t]
    ]
    return torch.stack(terms).mean()


def test_every_chosen_word_is_to_tell_its_own_sentence_from_the_others():
    scores = (3 * _words(3, 4, 3)).requires_grad_()
    found, expected = contrast(scores, MASK), _reference_contrast(scores, MASK)
    closely(found, expected)
    (grad,) = torch.autograd.grad(found, scores)
    closely((grad,), torch.autograd.grad(expected, scores))
    assert not grad[~MASK].any()
    for b in range(3):  # up for the own sentence, down for the others
        own = torch.arange(3) == b
        assert (grad[b][MASK[b]][:, own] > 0).all() and (grad[b][MASK[b]][:, ~own] < 0).all()


def test_the_bound_is_at_most_the_logarithm_of_the_batch_and_reaches_it():
    for seed in range(20):
        assert contrast(10 * _words(3, 4, 3, seed=seed), MASK) <= math.log(3)
    sure = 1e4 * torch.eye(3).double().unsqueeze(1).expand(3, 4, 3)
    closely(contrast(sure, MASK), torch.tensor(math.log(3), dtype=torch.float64))
    assert contrast(-sure, MASK).isfinite()


def test_scores_that_tell_nothing_bound_nothing():
    alike = _words(3, 4, 1).expand(3, 4, 3)  # of each word, the same for all sentences
    torch.testing.assert_close(contrast(alike, MASK), torch.zeros(()).double(), rtol=0, atol=1e-15)


def test_a_single_sentence_and_no_chosen_word_bound_nothing_and_have_no_gradient():
    for scores, chosen in (
        (_words(1, 4, 1), torch.ones(1, 4).bool()),
        (_words(3, 4, 3), torch.zeros(3, 4).bool()),
    ):
        bound = contrast(scores.requires_grad_(), chosen)
        exactly(bound, torch.zeros((), dtype=torch.float64))
        exactly(torch.autograd.grad(bound, scores), (torch.zeros_like(scores),))


def test_half_precision_scores_are_compared_in_float32():
    scores = (3 * _words(3, 4, 3)).half()
    exactly(contrast(scores, MASK), contrast(scores.float(), MASK))
