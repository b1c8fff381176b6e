"""FreeLB against its closed forms, and against the paper's Algorithm 1."""

import pytest
import torch
from testbed import (
    FINETUNE,
    PERTURBING,
    MeanPool,
    Tensors,
    ascent,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    of_size,
    recording,
    same,
    sgd,
)
from torch import Tensor, nn

from lit_adv.finetuner import FineTuner
from lit_adv.methods.freelb import FreeLB as Method
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch

FreeLB = PERTURBING["freelb"]


def _reference_freelb(
    network: nn.Module, batch: Tensors, start: Tensor, steps: int, alpha: float, epsilon: float
) -> tuple[list[Tensor], Tensors]:
    """Zhu et al. 2020, Algorithm 1, for one batch: lines 5 to 12, the last ascent left out."""
    deltas = [start]
    gradient: Tensors = {}
    for t in range(steps):
        delta = deltas[-1]
        for name, grad in derivative(loss(network, batch, delta).mean(), network).items():
            gradient[name] = gradient.get(name, 0) + grad / steps
        if t == steps - 1:
            break
        g_adv = ascent(lambda d: loss(network, batch, d), delta)
        moved = []
        for d, g in zip(delta, g_adv, strict=True):
            step = d + alpha * g / g.norm()
            moved.append(step * epsilon / step.norm() if step.norm() > epsilon else step)
        deltas.append(torch.stack(moved))
    return deltas, gradient


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("init_size", [0.0, 0.3])
def test_perturbations_and_gradient_are_the_papers(steps: int, init_size: float):
    network, (batch,) = bert(), batches()
    options = {"steps": steps, "step_size": 0.2, "radius": 0.45, "init_size": init_size}
    run = fit(FreeLB(classify(network), sgd(lr=0.0), **options), [batch])
    start = run.module.deltas[0]
    deltas, expected = _reference_freelb(network, batch, start, steps, 0.2, 0.45)
    assert bool(start.any()) == bool(init_size)
    close(run.module.deltas, deltas)
    close(run.gradients[0], expected)


@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_the_gradient_is_that_of_the_mean_over_the_virtual_batch(norm: str):
    network, (batch,) = bert(), batches()
    run = fit(FreeLB(classify(network), sgd(lr=0.0), norm=norm), [batch])
    virtual = {name: torch.cat([value] * 4) for name, value in batch.items()}
    objective = loss(network, virtual, torch.cat(run.module.deltas)).mean()
    close(run.gradients[0], derivative(objective, network))


class Bilinear(Classification):
    """The answer itself is the loss."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits[:, 0]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_on_a_bilinear_loss_the_gradient_has_its_closed_form(steps: int):
    network, (batch,) = MeanPool(labels=1), batches(size=8)
    options = {"steps": steps, "step_size": 0.2, "radius": torch.inf, "init_size": 0.3}
    method = recording(Method)
    module = method(Bilinear(network, num_labels=2), sgd(lr=0.0), norm="l2", **options)
    run = fit(module, [batch])

    real = batch["attention_mask"].double().unsqueeze(-1)
    lengths = real.sum(1)
    words, (w,) = network.words(batch["input_ids"]), network.head.weight
    ahead = real * w / (w.norm() * lengths.sqrt().unsqueeze(-1))  # u, the same at every token
    middle = words + run.module.deltas[0] + 0.2 * (steps - 1) / 2 * ahead
    expected = ((real * middle).sum(1) / lengths).mean(0, keepdim=True)
    close(run.gradients[0]["network.head.weight"], expected)


def test_there_are_as_many_passes_as_steps_and_one_ascent_less():
    for steps in (1, 2, 5):
        run = fit(FreeLB(classify(bert()), sgd(), steps=steps), batches())
        deltas = run.module.deltas
        assert len(run.module.seen) == len(deltas) == steps
        assert all(each.trains for each in run.module.seen)
        assert len({tuple(delta.flatten().tolist()) for delta in deltas}) == steps


def test_with_one_step_the_gradient_is_that_at_the_random_start():
    network, (batch,) = bert(), batches()
    run = fit(FreeLB(classify(network), sgd(lr=0.0), steps=1), [batch])
    (start,) = run.module.deltas
    assert start.any()
    close(run.gradients[0], derivative(loss(network, batch, start).mean(), network))


@pytest.mark.parametrize("tokens, padding", [(3, 0), (20, 0), (20, 17), (12, 5)])
def test_the_start_has_a_third_of_its_square_size_on_average_whatever_the_length(
    tokens: int, padding: int
):
    batch = {"attention_mask": torch.ones(2000, tokens).long()}
    batch["attention_mask"][:, tokens - padding :] = 0
    module = FineTuner(classify(MeanPool(width=8)), sgd())
    start = module.sample(batch, 0.4)
    assert (norms(start) <= 0.4).all()
    assert not start[:, tokens - padding :].any()
    # The sum of n squares of U(-1, 1), over n: mean 1/3, variance (1/5 - 1/9) / n.
    coordinates = 8 * (tokens - padding)
    deviation = 0.4**2 * (4 / 45 / coordinates / len(start)) ** 0.5
    assert norms(start).square().mean() == pytest.approx(0.4**2 / 3, abs=4 * deviation)


def test_a_start_outside_the_ball_is_projected():
    run = fit(FreeLB(classify(bert()), sgd(), init_size=30.0, radius=0.5), batches())
    of_size(run.module.deltas[0], 0.5)


def test_the_logged_loss_is_the_mean_over_the_passes():
    run = fit(FreeLB(classify(bert()), sgd(), steps=4), batches())
    mean = torch.stack([each.losses for each in run.module.seen]).mean()
    assert run.logs[0]["train/loss"] == pytest.approx(float(mean))
    last = norms(run.module.deltas[-1]).mean()
    assert run.logs[0]["perturbation/norm"] == pytest.approx(float(last))


def test_an_unlimited_radius_is_a_radius_beyond_reach():
    options = {"steps": 4, "step_size": 0.3, "init_size": 0.4}
    unlimited, far = (
        fit(FreeLB(classify(bert()), sgd(), radius=radius, **options), batches())
        for radius in (torch.inf, 0.4 + 4 * 0.3)
    )
    same(unlimited.module.deltas, far.module.deltas)
    same(unlimited.gradients, far.gradients)


def test_in_a_linear_model_the_way_from_the_start_grows_by_the_step():
    options = {"steps": 5, "step_size": 0.3, "radius": torch.inf, "init_size": 0.4}
    start, *later = fit(FreeLB(classify(MeanPool()), sgd(), **options), batches()).module.deltas
    for step, delta in enumerate(later, start=1):
        of_size(delta - start, 0.3 * step)


@pytest.mark.parametrize("steps, equal", [(2, same), (4, same), (3, close), (7, close)])
def test_without_a_perturbation_the_passes_sum_up_to_plain_fine_tuning(steps: int, equal):
    plain = gradient(FINETUNE, bert(), batches())
    options = {"steps": steps, "step_size": 0.0, "init_size": 0.0}
    equal(gradient(FreeLB, bert(), batches(), **options), plain)


@pytest.mark.parametrize(
    "option, value",
    [
        ("steps", 0),
        ("steps", 2.5),
        ("step_size", -0.1),
        ("radius", -1.0),
        ("init_size", float("nan")),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        FreeLB(classify(MeanPool()), sgd(), **{option: value})
