"""First weights: their variances, and what maps of such weights do to a signal."""

from typing import Any

import pytest
import torch
from torch import nn

from lit_adv.models.initial import TRUNCATED_STD, initialise, variance

M, N = 200, 800


def _maps() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(M, N), nn.LayerNorm(N), nn.Linear(N, M), nn.Embedding(5, M))


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("lecun", 1 / M),
        ("he", 2 / M),
        ("glorot", 2 / (M + N)),
        ("geometric", 1 / (M * N) ** 0.5),
        ("quadratic", (M + N) / (M**2 + N**2)),
        ("bert", (0.02 * TRUNCATED_STD) ** 2),
    ],
)
def test_weights_have_the_variance_of_the_rule_and_biases_are_zero(rule: Any, wanted: float):
    network = _maps()
    initialise(network, rule)
    first: Any = network[0]
    assert variance(rule, M, N) == wanted
    assert first.weight.var().item() == pytest.approx(wanted, rel=0.02)  # 160,000 draws: 0.35 %
    assert abs(first.weight.mean().item()) < 5 * (wanted / (M * N)) ** 0.5
    assert bool((first.bias == 0).all())


def test_berts_weights_are_cut_at_two_of_the_standard_deviations_before_the_cut():
    network = _maps()
    initialise(network, "bert")
    first: Any = network[0]
    assert 0.0399 < first.weight.abs().max().item() <= 0.04
    assert pytest.approx(0.7737413**0.5, abs=1e-6) == TRUNCATED_STD


def test_words_and_norms_stay_as_they_are_and_own_changes_nothing():
    for rule in ("own", "he"):
        before, network = _maps(), _maps()
        initialise(network, rule)
        for i in (1, 3):
            for one, other in zip(before[i].parameters(), network[i].parameters(), strict=True):
                assert torch.equal(one, other)
        assert torch.equal(
            before[0].get_parameter("weight"), network[0].get_parameter("weight")
        ) == (rule == "own")


def test_there_and_back_the_geometric_rule_keeps_the_variance_and_the_others_do_not():
    """kexue.fm/archives/8725: round trips of 1, .64 and .346 for a map to four times the width."""
    gains = {}
    x = torch.randn(2000, M, generator=torch.Generator().manual_seed(1))
    for rule in ("geometric", "glorot", "quadratic"):
        network = _maps()
        initialise(network, rule)
        y = network[2](network[0](x))
        gains[rule] = y.var().item()
    assert gains["geometric"] == pytest.approx(1, rel=0.05)
    assert gains["glorot"] == pytest.approx(0.64, rel=0.05)
    assert gains["quadratic"] == pytest.approx(0.346, rel=0.05)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"model\.init=magic"):
        initialise(_maps(), "magic")  # pyright: ignore
