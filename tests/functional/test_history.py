"""Rows of past batches: any two of them, windows, standard errors, and what stands out."""

import copy
import math
import statistics
from typing import Any

import pytest
import torch
from functional import pairs
from torch import Tensor

from lit_adv.functional.accordance import Accordance
from lit_adv.functional.history import History
from lit_adv.functional.sketch import CountSketch

Rows = list[dict[Any, Tensor]]

close = pytest.approx


def rows(*args: Any, **options: Any) -> Rows:
    """Of classes in batches; a batch may have none."""
    made = pairs.random(*args, **{"shapes": [(13,)], **options})
    return [{label: pairs.flat(parts) for label, parts in batch.items()} for batch in made]


def parts(batches: Rows) -> list[dict[Any, list[Tensor]]]:
    """As brute force wants them."""
    return [{label: [row] for label, row in batch.items()} for batch in batches]


def wanted(kind: str, i: Any, j: Any) -> bool:
    """Whether this pair of classes is of the kind."""
    return kind == "all" or (i == j) == (kind == "same")


def mean_between(one: dict[Any, Tensor], other: dict[Any, Tensor], kind: str) -> float:
    """Over pairs of a row of each; a row with itself is no pair."""
    return pairs.mean(
        [
            float(g @ h)
            for i, g in one.items()
            for j, h in other.items()
            if wanted(kind, i, j) and g is not h
        ]
    )


# ---- means ---------------------------------------------------------------------------------------


def agree(history: History, batches: Rows) -> None:
    """The means of the history are those over all pairs of rows."""
    found, brute = history.means(), pairs.means(parts(batches))
    for name in (*pairs.KINDS, "within"):
        assert found[name] == close(brute[name], rel=0, abs=1e-10, nan_ok=True), name
    assert found["pairs"] == brute["pairs"]


@pytest.mark.parametrize("seed", range(4))
def test_means_are_those_over_all_pairs(seed: int):
    batches = rows(absent=0.4, seed=seed)
    agree(History(batches), batches)
    assert len(History(batches)) == len(batches)


def test_sliding_windows_are_histories_too():
    batches = rows(10)
    history = History(batches)
    for length in (1, 2, 4, 9):
        for start in range(len(batches) - length + 1):
            window = history[start : start + length]
            assert len(window) == length
            agree(window, batches[start : start + length])
    agree(history[::3], batches[::3])
    agree(history, batches)


def test_windows_put_together_are_the_whole():
    batches = rows(8)
    grown, other = History(), History(batches[5:])
    for batch in batches[:5]:
        grown.append(batch)
    grown.extend(other)
    agree(grown, batches)
    agree(other, batches[5:])
    grown.append(batches[0])
    assert len(other) == 3


def test_a_window_of_an_accordance_is_the_accordance_of_that_window():
    batches = pairs.random(10)
    sketch = CountSketch(64)
    whole, window = (Accordance(sketch=sketch) for _ in range(2))
    for s, batch in enumerate(batches):
        whole.update(batch)
        if 3 <= s < 8:
            window.update(batch)
    found, exact = whole.history[3:8].means(), window.history.means()
    assert found.pop("pairs") == exact.pop("pairs") == pairs.means(batches[3:8])["pairs"]
    assert found == close(exact)


# ---- any two batches -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_the_matrix_has_the_mean_of_any_two_batches(kind: str):
    batches = rows(9, 3, absent=0.5)
    assert any(not batch for batch in batches)
    matrix = History(batches).matrix(kind)
    brute = [[mean_between(one, other, kind) for other in batches] for one in batches]
    expected = torch.tensor(brute, dtype=torch.float64)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-10, equal_nan=True)
    assert matrix.isnan().any() and not matrix.isnan().all()


def test_a_history_without_rows_has_no_means():
    for batches in ([], [{}], [{}, {}, {}]):
        history = History(copy.copy(batches))
        agree(history, batches)
        assert all(math.isnan(error) for error in history.standard_errors().values())
        assert history.matrix().shape == (len(batches), len(batches))
        assert history.outlying().isnan().all()


def test_rows_of_float32_are_compared_in_it():
    batches = rows(9)
    narrow = [{label: row.float() for label, row in batch.items()} for batch in batches]
    exact, found = History(batches).means(), History(narrow).means()
    for name in (*pairs.KINDS, "within"):
        assert found[name] == close(exact[name], rel=1e-5, abs=1e-6)


# ---- outlying ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pairs.KINDS)
@pytest.mark.parametrize("planted", [0, 7, 20])
def test_a_batch_of_flipped_gradients_stands_out(kind: str, planted: int):
    stream = torch.Generator().manual_seed(planted)
    common = torch.randn(100, generator=stream, dtype=torch.float64)
    batches: Rows = [
        {c: common + torch.randn(100, generator=stream, dtype=torch.float64) for c in range(2)}
        for _ in range(21)
    ]
    before = History(copy.copy(batches)).outlying(kind)
    batches[planted] = {label: -row for label, row in batches[planted].items()}
    outlying = History(batches).outlying(kind)
    assert int(outlying.argmin()) == planted and outlying[planted] < -8 < -5 < before.min()
    others = torch.cat([outlying[:planted], outlying[planted + 1 :]])
    assert others.abs().max() < 5


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_outlying_counts_robust_deviations_of_the_mean_with_the_others(kind: str):
    batches = rows(11, absent=0.2)
    means = []
    for one in batches:
        values = [
            float(g @ h)
            for other in batches
            if other is not one
            for i, g in one.items()
            for j, h in other.items()
            if wanted(kind, i, j)
        ]
        means.append(pairs.mean(values))
    deviations = [value - statistics.median(means) for value in means]
    spread = 1.4826 * statistics.median(map(abs, deviations))
    assert History(batches).outlying(kind).tolist() == close([d / spread for d in deviations])


def test_a_batch_without_gradients_neither_stands_out_nor_counts():
    batches = rows(11, absent=0.2)
    outlying = History([*batches[:4], {}, *batches[4:]]).outlying()
    assert outlying[4].isnan()
    rest = torch.cat([outlying[:4], outlying[5:]])
    torch.testing.assert_close(rest, History(batches).outlying(), rtol=1e-10, atol=0)


# ---- standard errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [3, 4, 9])
def test_standard_errors_are_those_of_leaving_out_each_batch_once(count: int, seed: int):
    batches = rows(count, absent=0.15, seed=seed + 10)
    assert any(len(batch) < 4 for batch in batches)
    expected = pairs.jackknife(parts(batches))
    assert History(batches).standard_errors() == close(expected, rel=0, abs=1e-10)
    assert min(expected.values()) > 0


def test_where_leaving_out_a_batch_leaves_no_pair_there_is_no_standard_error():
    one, other, _ = rows(3, absent=0.0)
    errors = History([one, other, {}]).standard_errors()
    assert all(math.isnan(error) for error in errors.values())
    assert all(math.isnan(e) for e in History([one, other]).standard_errors().values())


def estimated_over_true(common: float, draws: int = 400) -> dict[str, float]:
    """Standard error, by the jackknife, over the spread of the mean from draw to draw."""
    stream = torch.Generator().manual_seed(0)
    shared = torch.randn(2, 30, generator=stream, dtype=torch.float64)
    means: dict[str, list[float]] = {kind: [] for kind in pairs.KINDS}
    variances: dict[str, list[float]] = {kind: [] for kind in pairs.KINDS}
    for _ in range(draws):
        noise = torch.randn(12, 2, 30, generator=stream, dtype=torch.float64)
        # Both classes of a batch have noise in common, as they have where batches differ.
        gradients = common * shared + noise + 0.5 * noise.flip(1)
        history = History([dict(enumerate(batch)) for batch in gradients])
        found, errors = history.means(), history.standard_errors()
        for kind in pairs.KINDS:
            means[kind].append(found[kind])
            variances[kind].append(errors[kind] ** 2)
    return {
        kind: math.sqrt(pairs.mean(variances[kind])) / statistics.stdev(means[kind])
        for kind in pairs.KINDS
    }


def test_of_pure_noise_the_standard_error_is_root_two_too_large():
    for kind, ratio in estimated_over_true(0.0).items():
        assert 1 < ratio < 2, kind
        assert ratio == close(math.sqrt(2), rel=0.12), kind


def test_of_gradients_with_something_in_common_the_standard_error_is_right():
    for kind, ratio in estimated_over_true(2.0).items():
        assert ratio == close(1, rel=0.1), kind
