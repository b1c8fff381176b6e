"""Sums by word and the direction of a table, against the table itself and against loops."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_adv.functional import ball, tables

exactly = partial(torch.testing.assert_close, rtol=0, atol=0)
closely = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-300)

WORDS = 6  # few, so that every word comes several times, and in several examples


def _batch(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Values, words and a mask with holes; a word may be masked here and real there."""
    stream = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 7, 3, generator=stream, dtype=torch.float64).to(dtype)
    words = torch.randint(WORDS, (4, 7), generator=stream)
    mask = torch.rand(4, 7, generator=stream) < 0.7
    words[0, 0], mask[0, 0] = 99, True  # once
    words[1, 1], mask[1, 1] = 98, False  # never real
    return values, words, mask


def _reference_table(values: Tensor, words: Tensor, mask: Tensor) -> dict[int, Tensor]:
    """The row of every word that is there."""
    table: dict[int, Tensor] = {}
    for value, word, real in zip(
        values.flatten(0, 1), words.flatten(), mask.flatten(), strict=True
    ):
        if real:
            table[int(word)] = table.get(int(word), torch.zeros(3, dtype=torch.float64)) + value
    return table


def test_sums_and_counts_are_those_of_a_loop():
    values, words, mask = _batch()
    sums, counts = tables.sum_by_word(values, words, mask)
    table = _reference_table(values, words, mask)
    for b in range(4):
        for t in range(7):
            if mask[b, t]:
                closely(sums[b, t], table[int(words[b, t])])
                assert counts[b, t] == ((words == words[b, t]) & mask).sum()
            else:
                assert not sums[b, t].any()
                assert counts[b, t] == 1


def test_the_sum_is_the_gradient_of_an_embedding_table():
    upstream, words, mask = _batch()
    words = words % WORDS
    table = torch.zeros(WORDS, 3, dtype=torch.float64, requires_grad=True)
    taken = F.embedding(words, table) * mask.unsqueeze(-1)
    (grad,) = torch.autograd.grad((taken * upstream).sum(), table)
    closely(tables.sum_by_word(upstream, words, mask)[0], grad[words] * mask.unsqueeze(-1))
    expected = (grad / grad.norm())[words] * mask.unsqueeze(-1)
    closely(tables.unit(upstream, words, mask), expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_tables_direction_has_length_one_over_its_rows(seed: int):
    values, words, mask = _batch(seed=seed)
    direction = tables.unit(values, words, mask)
    rows = {int(words[b, t]): direction[b, t] for b, t in mask.nonzero()}
    closely(torch.stack(list(rows.values())).norm(), torch.ones(()).double())
    table = _reference_table(values, words, mask)
    length = torch.stack(list(table.values())).norm()
    for word, row in rows.items():
        closely(row, table[word] / length)
    assert not direction[~mask].any()


def test_without_repeated_words_one_examples_direction_is_its_own():
    values, mask = _batch()[0][:1], torch.tensor([[True, True, False, True, True, False, True]])
    words = torch.tensor([[3, 1, 1, 4, 5, 9, 2]])
    closely(tables.unit(values, words, mask), ball.unit(values * mask.unsqueeze(-1)))
    sums, counts = tables.sum_by_word(values, words, mask)
    exactly(sums, values * mask.unsqueeze(-1))
    exactly(counts, torch.ones(1, 7).double())


def test_only_which_words_are_the_same_matters():
    values, words, mask = _batch()
    other = torch.tensor([2**40, 7, 2**50, 0, 3, 12])  # no table of that size is made
    names = torch.cat([other, torch.arange(6, 98), torch.tensor([11, 10])])[words]
    for found, expected in zip(
        tables.sum_by_word(values, names, mask),
        tables.sum_by_word(values, words, mask),
        strict=True,
    ):
        closely(found, expected)


def test_what_is_masked_does_not_count_whatever_it_is():
    values, words, mask = _batch()
    spoiled = torch.where(mask.unsqueeze(-1), values, torch.nan)
    spoiled[1, 1] = torch.inf
    exactly(tables.unit(spoiled, words, mask), tables.unit(values, words, mask))


@pytest.mark.parametrize("exponent", [-600, -60, 60, 600])
def test_a_power_of_two_does_not_change_a_bit_of_the_direction(exponent: int):
    values, words, mask = _batch()
    exactly(tables.unit(values * 2.0**exponent, words, mask), tables.unit(values, words, mask))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_in_float32_nothing_overflows_or_vanishes(scale: float):
    values, words, mask = _batch(torch.float32)
    found = tables.unit(values * scale, words, mask)
    assert found.dtype == torch.float32
    expected = tables.unit(values.double(), words, mask).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype):
    values = torch.full((1, 7, 3), 6e4).to(dtype)
    words, mask = torch.zeros(1, 7, dtype=torch.long), torch.ones(1, 7).bool()
    sums, counts = tables.sum_by_word(values, words, mask)
    assert sums.dtype == counts.dtype == torch.float32
    exactly(sums, 7 * values.float())


def test_no_gradient_has_no_direction():
    values, words, mask = _batch()
    exactly(tables.unit(0 * values, words, mask), 0 * values)
    exactly(tables.unit(values, words, torch.zeros_like(mask)), 0 * values)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_moves_no_word_at_all(bad: float):
    values, words, mask = _batch()
    values[0, 0, 1] = bad  # of a word that comes once
    exactly(tables.unit(values, words, mask), torch.zeros_like(values))


def test_words_may_be_of_any_integer_type():
    values, words, mask = _batch()
    exactly(tables.unit(values, words.int(), mask), tables.unit(values, words, mask))
