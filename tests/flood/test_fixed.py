"""Flooding of the effective batch, and of each micro-batch by itself."""

import pytest
import torch
from testbed import METHODS, Floodable, MeanPool, batches, close, cut, fit, loss, scaled, sgd

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual


def gradient(flood: Fixed | Individual | None, sizes: list[int], name: str = "finetune"):
    """The gradient of one window of micro-batches of these sizes."""
    (batch,) = batches(size=sum(sizes))
    options = {} if flood is None else {"flood": flood}
    descent = sgd(lr=0.0, accumulate_grad_batches=len(sizes), **options)
    return fit(METHODS[name](Floodable(MeanPool()), descent), cut(batch, *sizes)).gradients[0]


def means(sizes: list[int]) -> list[float]:
    (batch,) = batches(size=sum(sizes))
    return [loss(MeanPool(), part).mean().item() for part in cut(batch, *sizes)]


def test_each_micro_batch_is_turned_by_its_own_mean():
    one, other = means([3, 3])
    level = (one + other) / 2
    parts = [gradient(None, [3, 3])]
    (batch,) = batches(size=6)
    for part in cut(batch, 3, 3):
        run = fit(METHODS["finetune"](Floodable(MeanPool()), sgd(lr=0.0)), [part])
        parts.append(run.gradients[0])
    whole, first, second = parts
    slopes = [1.0 if mean > level else -1.0 for mean in (one, other)]
    assert slopes[0] != slopes[1]
    micro = gradient(Fixed(level - 1e-9, scope="micro"), [3, 3])
    for name, grad in micro.items():
        close(grad, (slopes[0] * first[name] + slopes[1] * second[name]) / 2)
    # The mean of both lies at the level, so the effective batch is descended as it is.
    close(gradient(Fixed(level - 1e-9), [3, 3]), whole)


@pytest.mark.parametrize("name", ["finetune", "freelb", "fgm"])
def test_of_single_examples_it_is_iflood(name: str):
    level = 0.7
    sizes = [1, 1, 1, 1]
    micro, individual = (
        gradient(flood, sizes, name) for flood in (Fixed(level, "micro"), Individual(level))
    )
    close(micro, individual)


@pytest.mark.parametrize("name", METHODS)
def test_below_the_level_the_adversary_still_climbs(name: str):
    data = batches()
    runs = [
        fit(METHODS[name](Floodable(MeanPool(bend=True)), sgd(lr=0.0, **options)), data)
        for options in ({}, {"flood": Fixed(1e3, scope="micro")})
    ]
    dry, wet = runs
    torch.testing.assert_close(wet.module.deltas, dry.module.deltas, rtol=0, atol=0)
    assert wet.logs[0]["flood/share"] == pytest.approx(1)
    if name in ("finetune", "fgm", "freelb", "pgd_b"):
        close(wet.gradients[0], scaled(dry.gradients[0], -1))


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="flood.scope=rank: choose one of global, micro"):
        Fixed(0.1, scope="rank")  # pyright: ignore[reportArgumentType]


def test_without_micro_batches_both_scopes_are_one():
    for level in (0.1, 1e3):
        close(gradient(Fixed(level), [4]), gradient(Fixed(level, scope="micro"), [4]))
