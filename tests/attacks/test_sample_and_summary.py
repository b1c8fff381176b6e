"""Which examples are attacked, at which temperature, and what the figures of all of them are."""

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from lit_adv.attacks import summary
from lit_adv.attacks.sample import stratified
from lit_adv.functional import temperature

# ---- samples -------------------------------------------------------------------------------------


def _reference_sizes(counts: dict[int, int], n: int) -> dict[int, int]:
    """By largest remainder, in fractions; of equal ones the smaller label first."""
    total = sum(counts.values())
    n = min(n, total)
    quotas = {label: Fraction(count * n, total) for label, count in counts.items()}
    sizes = {label: int(quota) for label, quota in quotas.items()}
    order = sorted(counts, key=lambda label: (sizes[label] - quotas[label], label))
    for label in order[: n - sum(sizes.values())]:
        sizes[label] += 1
    return sizes


def _labels(counts: dict[int, int], seed: int) -> list[int]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return np.random.default_rng(seed).permutation(labels).tolist()


def test_every_class_has_its_share():
    random = np.random.default_rng(0)
    for seed in range(150):
        counts = {k: int(random.integers(1, 40)) for k in range(int(random.integers(1, 6)))}
        labels = _labels(counts, seed)
        for n in (1, 2, 3, 7, len(labels) // 2, len(labels) - 1, len(labels), len(labels) + 5):
            rows = stratified(labels, n, seed)
            assert len(rows) == len(set(rows)) == min(n, len(labels))
            assert set(rows) <= set(range(len(labels)))
            taken = Counter(labels[row] for row in rows)
            expected = _reference_sizes(counts, n)
            assert taken == Counter({k: v for k, v in expected.items() if v}), (counts, n)


@pytest.mark.parametrize(
    "counts, n, sizes",
    [
        ((1, 1, 7), 3, (1, 0, 2)),  # 1/3, 1/3, 2 1/3
        ((1, 1, 7), 6, (1, 1, 4)),
        ((1, 3, 10), 2, (0, 1, 1)),  # 1/7, 3/7, 1 3/7
        ((5, 5), 3, (2, 1)),
    ],
)
def test_ties_go_to_the_smaller_label_however_floating_point_rounds(
    counts: tuple[int, ...], n: int, sizes: tuple[int, ...]
):
    labels = _labels(dict(enumerate(counts)), 0)
    taken = Counter(labels[row] for row in stratified(labels, n, seed=0))
    assert tuple(taken[label] for label in range(len(counts))) == sizes


def test_a_sample_is_the_seeds():
    labels = _labels({0: 40, 1: 30, 2: 30}, 0)
    assert stratified(labels, 50, 1) == stratified(labels, 50, 1) != stratified(labels, 50, 2)
    whole = stratified(labels, 1000, 3)
    assert sorted(whole) == list(range(100)) and whole != list(range(100))
    assert stratified([], 5, 0) == stratified(labels, 0, 0) == []
    assert all(type(row) is int for row in whole)
    # Mixed: the classes do not come one after the other.
    order = [labels[row] for row in whole]
    assert order != sorted(order)


def test_any_row_may_be_drawn():
    labels = [0] * 6 + [1] * 4
    drawn = Counter(row for seed in range(200) for row in stratified(labels, 5, seed))
    assert set(drawn) == set(range(10)) and min(drawn.values()) > 60


# ---- figures -------------------------------------------------------------------------------------


def _record(outcome: str, **more: Any) -> dict[str, Any]:
    return {"outcome": outcome, **more}


RECORDS = [
    _record("succeeded", queries=10, changed=0.5, similarity=0.9),
    _record("succeeded", queries=20, changed=0.1, similarity=None),
    _record("succeeded", queries=30, changed=0.3, similarity=0.5),
    _record("failed", queries=100, changed=0.9, similarity=0.1),
    _record("misclassified"),
    _record("skipped", reason="empty text"),
]


def test_figures_by_hand():
    assert summary.of(RECORDS) == {
        "examples": {"succeeded": 3, "failed": 1, "misclassified": 1, "skipped": 1},
        "clean_accuracy": 100 * 4 / 5,
        "accuracy_under_attack": 100 * 1 / 5,
        "success_rate": 100 * 3 / 4,
        "mean_queries": 40.0,
        "mean_changed": pytest.approx(30.0),
        "mean_similarity": pytest.approx(0.7),
    }


def test_the_success_rate_is_what_the_accuracy_loses():
    random = np.random.default_rng(0)
    for _ in range(50):
        drawn = random.choice(summary.OUTCOMES, size=20)
        figures = summary.of([_record(str(outcome)) for outcome in drawn])
        clean, under = figures["clean_accuracy"], figures["accuracy_under_attack"]
        if clean:
            assert figures["success_rate"] == pytest.approx(100 * (1 - under / clean))
        assert sum(figures["examples"].values()) == 20


@pytest.mark.parametrize(
    "records, clean, under, rate",
    [
        ([], None, None, None),
        ([_record("skipped")], None, None, None),
        ([_record("misclassified")], 0, 0, None),
        ([_record("failed", queries=1, changed=0.0)], 100, 100, 0),
        ([_record("succeeded")], 100, 0, 100),
    ],
)
def test_of_nothing_there_is_no_figure(records: Any, clean: Any, under: Any, rate: Any):
    figures = summary.of(records)
    assert figures["clean_accuracy"] == clean and figures["success_rate"] == rate
    assert figures["accuracy_under_attack"] == under
    assert figures["mean_changed"] is figures["mean_similarity"] is None


def test_figures_of_the_calibrated_victim_are_of_its_own_attacks():
    one = _record("succeeded", queries=10, changed=0.2, similarity=0.9)
    two = _record("failed", queries=50, changed=0.0, similarity=None)
    wrong = {"outcome": "misclassified"}
    records = [
        {"index": 0, **one, "calibrated": two},
        {"index": 1, **two, "calibrated": one},
        {"index": 2, **two, "calibrated": two},
        {"index": 3, **wrong, "calibrated": wrong},
        {"index": 4, "outcome": "skipped", "reason": "empty text"},
    ]
    figures = summary.calibrated(records, 2.5)
    assert figures == {"temperature": 2.5, **summary.of([two, one, two, wrong, records[4]])}
    assert summary.of(records)["mean_queries"] == 110 / 3


# ---- temperatures --------------------------------------------------------------------------------


def _loss(t: float, logits: Tensor, labels: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double() / t, labels))


def _logits(seed: int, classes: int, scale: float, noise: float) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(80, classes, generator=stream)
    drawn = torch.multinomial(torch.softmax(logits / noise, 1), 1, generator=stream)
    return logits, drawn[:, 0]


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("noise", [0.3, 1.0, 6.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 40.0])
def test_the_temperature_minimises_the_loss(classes: int, noise: float, scale: float):
    logits, labels = _logits(classes, classes, scale, noise * scale)
    fitted = temperature.fit(logits, labels)
    assert 0.01 <= fitted <= 100
    grid = np.geomspace(0.01, 100, 801)
    losses = [_loss(t, logits, labels) for t in grid]
    assert _loss(fitted, logits, labels) <= min(losses) + 1e-9
    found: Any = minimize_scalar(
        lambda b: _loss(1 / b, logits, labels), bounds=(0.01, 100), options={"xatol": 1e-9}
    )
    assert _loss(fitted, logits, labels) <= found.fun + 1e-9
    if 0.0101 < fitted < 99:
        b = torch.tensor(1 / fitted, dtype=torch.float64, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(b * logits.double(), labels)
        (slope,) = torch.autograd.grad(loss, b)
        assert abs(float(slope)) < 1e-9 * scale
        assert fitted == pytest.approx(1 / found.x, rel=1e-3)


def test_logits_times_a_factor_have_the_temperature_times_it():
    logits, labels = _logits(0, 3, 1.0, 2.0)
    one = temperature.fit(logits, labels)
    assert temperature.fit(8 * logits, labels) == pytest.approx(8 * one, rel=1e-9)
    assert temperature.fit(logits + 100, labels) == pytest.approx(one, rel=1e-4)


def test_always_right_is_the_least_and_worse_than_nothing_the_largest():
    logits, _ = _logits(0, 4, 5.0, 1.0)
    best, worst = logits.argmax(1), logits.argmin(1)
    assert temperature.fit(logits, best) == temperature.LEAST == 0.01
    assert temperature.fit(logits, worst) == temperature.MOST == 100.0
    assert temperature.fit(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)) == 100.0
    assert temperature.fit(1e4 * logits, best) == 0.01
