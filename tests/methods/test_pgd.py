"""PGD against its closed forms, and against its definition in a few lines."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    PERTURBING,
    Answer,
    MeanPool,
    Tensors,
    ascent,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    loss,
    of_size,
    recording,
    same,
    sgd,
)
from torch import Tensor, nn

from lit_adv.methods.pgd import PGD
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch

both_forms = pytest.mark.parametrize("name", ["pgd_a", "pgd_b"])


def _reference_unit(grad: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return grad.sign()
    size = grad.square().sum().sqrt() if norm == "l2" else grad.abs().max()
    return grad / size


def _reference_project(delta: Tensor, radius: float, norm: str) -> Tensor:
    if norm == "l2":
        return delta * min(1.0, radius / float(delta.square().sum().sqrt()))
    return delta.clamp(-radius, radius)


def _reference_pgd(
    network: nn.Module, batch: Tensors, start: Tensor, norm: str
) -> tuple[list[Tensor], Tensors]:
    """Madry et al. 2018, equation 2.2 and the outer minimisation, with K = 3."""
    deltas = [start]
    for _ in range(3):
        grad = ascent(lambda d: loss(network, batch, d), deltas[-1])
        steps = [
            _reference_project(d + 0.3 * _reference_unit(g, norm), 0.5, norm)
            for d, g in zip(deltas[-1], grad, strict=True)
        ]
        deltas.append(torch.stack(steps))
    return deltas, derivative(loss(network, batch, deltas[-1]).mean(), network)


@both_forms
@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
@pytest.mark.parametrize("init_size", [0.0, 0.4])
def test_perturbations_and_gradient_are_the_papers(name: str, norm: str, init_size: float):
    network, (batch,) = bert(), batches()
    module = PERTURBING[name](classify(network), sgd(lr=0.0), norm=norm, init_size=init_size)
    run = fit(module, [batch])
    found = run.module.deltas[1:] if name == "pgd_a" and init_size else run.module.deltas

    deltas, expected = _reference_pgd(network, batch, found[0], norm)
    if name == "pgd_a":
        clean = derivative(loss(network, batch).mean(), network)
        expected = {key: clean[key] + grad for key, grad in expected.items()}
    assert bool(found[0].any()) == bool(init_size)
    close(found, deltas)
    close(run.gradients[0], expected)


def _margins(network: MeanPool, batch: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """`y z`, w and the lengths of a linear model of two classes."""
    lengths = batch["attention_mask"].sum(1).double()
    words = network.words(batch["input_ids"]) * batch["attention_mask"].unsqueeze(-1)
    w, b = network.head.weight[1] - network.head.weight[0], network.head.bias.diff()
    return (2 * batch["labels"] - 1) * (words.sum(1) / lengths.unsqueeze(1) @ w + b), w, lengths


@both_forms
@pytest.mark.parametrize("steps, radius", [(1, 0.5), (2, 0.5), (3, 0.5), (3, torch.inf)])
def test_in_a_linear_model_the_perturbation_grows_up_to_the_radius(
    name: str, steps: int, radius: float
):
    network, (batch,) = MeanPool(), batches(size=8)
    options = {"steps": steps, "step_size": 0.2, "radius": radius, "init_size": 0.0}
    run = fit(PERTURBING[name](classify(network), sgd(lr=0.0), **options), [batch])
    size = min(0.2 * steps, radius)
    of_size(run.module.deltas[-1], size)
    margin, w, lengths = _margins(network, batch)
    close(run.module.seen[-1].losses, F.softplus(-margin + size * w.norm() / lengths.sqrt()))


def test_in_a_linear_model_sign_steps_reach_the_corner_of_the_cube():
    network, (batch,) = MeanPool(), batches(size=8)
    options = {"norm": "linf", "steps": 3, "step_size": 0.3, "radius": 0.5, "init_size": 0.0}
    run = fit(PERTURBING["pgd_b"](classify(network), sgd(lr=0.0), **options), [batch])
    margin, w, _ = _margins(network, batch)
    close(run.module.seen[-1].losses, F.softplus(-margin + 0.5 * w.abs().sum()))


@both_forms
@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_in_a_linear_model_twice_as_many_steps_of_half_the_size_end_at_the_same_place(
    name: str, norm: str
):
    options = {"norm": norm, "radius": 0.5, "init_size": 0.0}
    few = PERTURBING[name](classify(MeanPool()), sgd(), steps=3, step_size=0.1, **options)
    many = PERTURBING[name](classify(MeanPool()), sgd(), steps=6, step_size=0.05, **options)
    one, other = (fit(module, batches(size=8)).module.deltas[-1] for module in (few, many))
    close(one, other)


class Flat(nn.Module):
    """Answers the embeddings themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 4).double()
        nn.init.zeros_(self.words.weight)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Answer:
        return Answer((self.words(input_ids) * attention_mask.unsqueeze(-1)).flatten(1))


class Quadratic(Classification):
    """`l_b = x_b^T A_b x_b / 2` of the perturbation itself."""

    matrices: Tensor

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return torch.einsum("bi,bij,bj->b", logits, self.matrices, logits) / 2


def test_on_a_quadratic_loss_the_perturbation_converges_to_the_constrained_maximiser():
    (batch,) = batches(size=3, tokens=3)
    batch["attention_mask"] = torch.ones(3, 3).long()
    task = Quadratic(Flat(), num_labels=2)
    basis, _ = torch.linalg.qr(torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0)))
    basis, values = basis.double(), torch.linspace(0.0, 1.0, 12).double() ** 3
    task.matrices = basis @ values.diag() @ basis.mT

    options = {"form": "B", "steps": 200, "step_size": 2.0, "radius": 0.5, "init_size": 0.1}
    run = fit(recording(PGD)(task, sgd(lr=0.0), norm="l2", **options), [batch])
    found, best = run.module.deltas[-1].flatten(1), basis[:, :, -1]
    assert (found * best).sum(1).abs() == pytest.approx([0.5] * 3, rel=1e-6)
    of_size(found, 0.5)


@both_forms
@pytest.mark.parametrize("init_size", [0.0, 0.4])
def test_ascents_leave_nothing_in_the_gradient_of_the_weights(name: str, init_size: float):
    """The perturbations are looked for in one run, and the gradient is taken in another graph."""
    network, data = bert(), batches(3)
    descent = sgd(lr=0.0, accumulate_grad_batches=3)
    run = fit(PERTURBING[name](classify(network), descent, init_size=init_size), data)
    per_batch = len(run.module.deltas) // 3
    total = torch.stack(
        [
            loss(network, batch, delta).mean() + (loss(network, batch).mean() if a_form else 0.0)
            for batch, delta in zip(
                data, run.module.deltas[per_batch - 1 :: per_batch], strict=True
            )
            for a_form in [name == "pgd_a"]
        ]
    )
    close(run.gradients[0], derivative(total.mean(), network))


@both_forms
def test_more_steps_raise_the_loss_of_a_small_ascent(name: str):
    """One after the other, each example's loss is higher after one step more."""
    options = {"step_size": 1e-4, "radius": torch.inf, "init_size": 0.0}
    ends = [
        fit(PERTURBING[name](classify(bert()), sgd(), steps=steps, **options), batches())
        for steps in range(4)
    ]
    losses = [run.module.seen[-1].losses for run in ends]
    assert all((higher > lower).all() for lower, higher in itertools.pairwise(losses))


@both_forms
def test_a_start_outside_the_ball_is_projected_before_the_first_pass(name: str):
    options = {"init_size": 30.0, "radius": 0.5, "steps": 0}
    run = fit(PERTURBING[name](classify(bert()), sgd(), **options), batches())
    of_size(run.module.deltas[-1], 0.5)


def test_without_steps_the_loss_is_that_at_the_start():
    network, (batch,) = bert(), batches()
    run = fit(PERTURBING["pgd_b"](classify(network), sgd(lr=0.0), steps=0), [batch])
    (start,) = run.module.deltas
    assert start.any()
    close(run.gradients[0], derivative(loss(network, batch, start).mean(), network))


def test_the_logged_loss_is_the_mean_over_the_passes_that_train():
    form_a = fit(PERTURBING["pgd_a"](classify(bert()), sgd()), batches())
    form_b = fit(PERTURBING["pgd_b"](classify(bert()), sgd()), batches())
    for run, count in ((form_a, 2), (form_b, 1)):
        losses = [each.losses.mean() for each in run.module.seen if each.trains]
        assert len(losses) == count
        assert run.logs[0]["train/loss"] == pytest.approx(float(sum(losses)) / count)


def test_an_unlimited_radius_is_a_radius_beyond_reach():
    unlimited, far = (
        fit(PERTURBING["pgd_b"](classify(bert()), sgd(), radius=radius), batches())
        for radius in (torch.inf, 1e6)
    )
    same(unlimited.module.deltas, far.module.deltas)
    same(unlimited.gradients, far.gradients)


@pytest.mark.parametrize(
    "option, value",
    [
        ("form", "C"),
        ("steps", -1),
        ("steps", 2.5),
        ("step_size", -0.1),
        ("radius", -1.0),
        ("radius", float("nan")),
        ("init_size", -0.1),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float | str):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        PERTURBING["pgd_b"](classify(MeanPool()), sgd(), **{option: value})
