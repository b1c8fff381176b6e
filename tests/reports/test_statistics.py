"""Means, standard deviations and intervals are those of scipy and of paper and pencil."""

import math

import pytest
from scipy import stats

from lit_adv.reports import labels, student
from lit_adv.reports.spread import Difference, Spread, difference, spread


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100, 999])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_are_scipys(freedom: int, confidence: float):
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert math.isclose(student.quantile(freedom, confidence), expected, rel_tol=1e-9)


def test_a_spread_has_n_minus_one_in_its_denominator():
    found = spread([0.90, 0.92, 0.97])
    assert found is not None and found.n == 3 and found.sd is not None
    assert found.mean == pytest.approx(0.93)
    assert found.sd == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert (found.low, found.high) == (found.mean - found.sd, found.mean + found.sd)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert spread([0.9]) == Spread(0.9, None, 1)
    assert spread([]) is None
    assert labels.spread(spread([0.9])) == "0.9000" and labels.spread(None) == "-"


def test_a_difference_is_that_of_pairs_with_students_interval():
    ours, base = {1: 0.90, 2: 0.93, 3: 0.91, 9: 0.5}, {1: 0.88, 2: 0.90, 3: 0.92, 7: 0.1}
    found = difference(ours, base)
    assert found is not None and found.n == 3 and found.half is not None
    expected = stats.ttest_rel([0.90, 0.93, 0.91], [0.88, 0.90, 0.92]).confidence_interval(0.95)
    assert found.mean == pytest.approx((0.02 + 0.03 - 0.01) / 3)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(tuple(expected))


def test_less_than_two_pairs_have_no_interval_and_are_not_told():
    assert difference({1: 0.9}, {2: 0.8}) is None
    alone = difference({1: 0.9, 2: 0.8}, {1: 0.5})
    assert alone is not None and alone.half is None and alone.n == 1
    assert labels.difference(alone) == labels.difference(None) == "-"
    assert labels.difference(Difference(-0.5, 0.25, 2)) == "-0.5000 [-0.7500, -0.2500]"
