"""FreeLB++: FreeLB whose perturbation may go as far as its steps take it."""

import math
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from testbed import (
    MeanPool,
    Run,
    ascent,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    loss,
    norms,
    recording,
    same,
    sgd,
)
from torch import nn

from lit_adv import config
from lit_adv.functional import ball
from lit_adv.methods.freelb import FreeLB as Method
from lit_adv.run import build

STEPS, ALPHA, SIGMA = 10, 0.3, 0.4


def _run(network: nn.Module, **options: Any) -> Run:
    sizes = {"steps": STEPS, "step_size": ALPHA, "init_size": SIGMA, "radius": math.inf}
    return fit(recording(Method)(classify(network), sgd(lr=0.0), **{**sizes, **options}), batches())


def test_the_method_of_this_name_is_freelb_without_a_limit_and_with_more_steps():
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        plain, more = (
            build(compose("train", [f"method={name}", "output_dir=."]), classify(bert()))
            for name in ("freelb", "freelb_pp")
        )
    assert isinstance(plain, Method) and isinstance(more, Method)
    assert math.isinf(more.radius) and 10 <= more.steps <= 30 and plain.steps < more.steps


@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_it_is_freelb_in_a_ball_that_is_never_left(norm: str):
    free = _run(bert(), norm=norm)
    bound = _run(bert(), norm=norm, radius=SIGMA + STEPS * ALPHA)
    same(free.module.deltas, bound.module.deltas)
    same(free.gradients, bound.gradients)
    assert free.module.deltas[-1].abs().max() > 0.5
    assert not torch.equal(
        _run(bert(), norm=norm, radius=0.5).module.deltas[-1], bound.module.deltas[-1]
    )


def test_on_a_linear_network_the_displacement_grows_by_the_same_step_each_time():
    start, *others = _run(MeanPool()).module.deltas
    ahead = others[0] - start
    close(norms(ahead), torch.full((4,), ALPHA, dtype=torch.float64))
    for count, delta in enumerate(others, start=1):
        close(delta - start, count * ahead)


def test_every_step_is_full_length_along_the_gradient_and_the_way_may_bend():
    network, (batch,) = bert(), batches()
    deltas = _run(network).module.deltas
    for before, after in zip(deltas[:-1], deltas[1:], strict=True):
        grad = ascent(lambda d: loss(network, batch, d), before)
        close(after, before + ALPHA * grad / norms(grad).view(-1, 1, 1))
    assert (norms(deltas[-1]) <= SIGMA + (STEPS - 1) * ALPHA).all()
    assert (norms(deltas[-1] - deltas[0]) < (STEPS - 1) * ALPHA * 0.999).any()


def test_the_gradient_is_that_of_the_mean_over_all_passes():
    network, (batch,) = bert(), batches()
    run = _run(network)
    objective = torch.stack([loss(network, batch, delta) for delta in run.module.deltas]).mean()
    close(run.gradients[0], derivative(objective, network))


@pytest.mark.parametrize("norm", ball.NORMS)
@pytest.mark.parametrize("per", ball.PERS)
def test_without_a_limit_nothing_is_projected_at_all(norm: ball.Norm, per: ball.Per):
    delta = 1e30 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert ball.project(delta, math.inf, norm, per) is delta
    assert ball.project(delta, None, norm, per) is delta
