"""R-Drop against its definition in a few lines, with the dropout masks that it drew."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    Floodable,
    MeanPool,
    Recorder,
    Tensors,
    answer,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    recording,
    sgd,
    with_spearman,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.methods.rdrop import RDrop as Method
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Batch


class Stateful(Recorder):
    """Keeps the state of the random stream before each pass, or draws from states it is given."""

    def __init__(self, *args: Any, play: list[Tensor] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.states: list[Tensor] = []
        self.play = play or []

    def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        if self.play:
            torch.set_rng_state(self.play.pop(0))
        self.states.append(torch.get_rng_state())
        return super().logits(batch, delta)


RDrop = partial(recording(Method, Stateful), alpha=2.0, dropout=0.3)


def _reference_kl(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.softmax(-1), q.softmax(-1)
    return (p * (p / q).log()).sum(-1)


def _answers(network: nn.Module, batch: Tensors, module: Recorder) -> list[Tensor]:
    """The network's answers under the dropout masks that the module drew."""
    assert isinstance(module, Stateful)
    found = []
    for state in module.states:
        torch.set_rng_state(state)
        found.append(answer(network, batch))
    return found


@pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_the_gradient_is_half_the_papers(build: Any, alpha: float):
    network, (batch,) = build(dropout=0.3), batches()
    run = fit(RDrop(classify(network), sgd(lr=0.0), alpha=alpha), [batch])
    p, q = _answers(network, batch, run.module)
    close([each.logits for each in run.module.seen], [p.detach(), q.detach()])
    first, second = (cross_entropy(z, batch["labels"], reduction="none") for z in (p, q))
    papers = first + second + alpha * (_reference_kl(p, q) + _reference_kl(q, p)) / 2
    close(run.gradients[0], derivative(papers.mean() / 2, network))


@with_spearman
def test_for_regression_the_divergence_is_the_squared_difference():
    network, (batch,) = MeanPool(labels=1, bend=True), batches()
    network.dropout.p, batch["labels"] = 0.3, batch["labels"].double()
    run = fit(recording(Method, Stateful)(Regression(network), sgd(lr=0.0), alpha=3.0), [batch])
    p, q = (z.squeeze(1) for z in _answers(network, batch, run.module))
    errors = ((p - batch["labels"]).square() + (q - batch["labels"]).square()) / 2
    close(run.gradients[0], derivative((errors + 3.0 / 4 * (p - q).square()).mean(), network))


def test_of_two_classes_the_divergence_has_its_value():
    (batch,) = batches(size=6)
    run = fit(RDrop(classify(MeanPool(bend=True)), sgd()), [batch])
    total = 0.0
    for one, other in zip(*(each.logits.tolist() for each in run.module.seen), strict=True):
        p, q = (1 / (1 + math.exp(z[0] - z[1])) for z in (one, other))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        total += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert total > 0.01
    assert run.logs[0]["perturbation/divergence"] == pytest.approx(total / 6)


def test_the_two_passes_draw_different_masks_and_neither_the_next_batchs():
    seen = fit(RDrop(classify(bert()), sgd(lr=0.0)), batches() * 2).module.seen
    assert len(seen) == 4 and all(each.trains and each.delta is None for each in seen)
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert (one.logits != other.logits).all()


def test_it_does_not_matter_which_pass_is_the_first():
    forward = fit(RDrop(classify(bert()), sgd(lr=0.0)), batches())
    assert isinstance(forward.module, Stateful)
    states = [*reversed(forward.module.states)]
    back = fit(RDrop(classify(bert()), sgd(lr=0.0), play=states), batches())
    close(back.module.seen[0].logits, forward.module.seen[1].logits)
    close(back.gradients, forward.gradients)


def test_alpha_scales_the_penalty_alone():
    plain, once, thrice = (gradient(RDrop, bert(), batches(), alpha=a) for a in (0.0, 1.0, 3.0))
    for name, grad in plain.items():
        close(thrice[name] - grad, 3 * (once[name] - grad))
    assert not torch.allclose(once["network.classifier.weight"], plain["network.classifier.weight"])


class Columns(nn.Dropout):
    """The same coordinates of all words fall away, in whatever batch."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.new_ones(input.shape[-1])) * input


def test_the_penalty_is_a_mean_over_the_batch():
    (batch,) = batches(size=5)
    double = {name: torch.cat([value, value]) for name, value in batch.items()}
    grads = []
    for data in (batch, double):
        network = MeanPool(width=16, bend=True)
        network.dropout = Columns(0.5)
        run = fit(RDrop(classify(network), sgd(), dropout=None), [data])
        assert run.logs[0]["perturbation/divergence"] > 0.01
        grads.append(run.gradients[0])
    close(*grads)


# ---- the dropout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_without_dropout_it_is_plain_fine_tuning(alpha: float):
    network = MeanPool(bend=True)
    run = fit(RDrop(classify(network), sgd(lr=0.0), alpha=alpha, dropout=0.0), batches())
    close(run.gradients[0], gradient(FINETUNE, MeanPool(bend=True), batches()))
    assert run.logs[0]["perturbation/divergence"] == 0


def test_the_probability_is_set_in_every_layer_or_left():
    network = bert(dropout=0.2)
    RDrop(classify(network), sgd(), dropout=None)
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert len(layers) > 3 and {layer.p for layer in layers} == {0.2}
    RDrop(classify(network), sgd(), dropout=0.4)
    assert {layer.p for layer in layers} == {0.4}


def test_the_probability_is_that_of_what_falls_away():
    """Of the words of a model without other layers, by the mean of many answers."""
    fallen: list[Tensor] = []
    network = MeanPool(width=64)
    network.dropout.register_forward_hook(lambda _, args, output: fallen.append(output.eq(0)))
    fit(RDrop(classify(network), sgd(), dropout=0.3), batches(size=50))
    one, other = (each.double() for each in fallen)
    spread = (0.3 * 0.7 / one.numel()) ** 0.5
    for share, expected in ((one, 0.3), (other, 0.3), (one * other, 0.09)):
        assert share.mean() == pytest.approx(expected, abs=4 * spread)


def test_evaluation_is_without_dropout():
    network, (batch,) = bert(), batches()
    run = fit(RDrop(classify(network), sgd(lr=0.0)), [batch], validation=[batch])
    expected = float(cross_entropy(answer(network.eval(), batch), batch["labels"]).detach())
    assert float(run.trainer.callback_metrics["val/loss"]) == pytest.approx(expected)


def test_a_network_without_dropout_has_nothing_to_draw():
    network = MeanPool()
    network.add_module("dropout", nn.Identity())
    with pytest.raises(ValueError, match="no dropout"):
        RDrop(classify(network), sgd())
    RDrop(classify(network), sgd(), alpha=0.0)


@pytest.mark.parametrize("dropout", [None, 0.0])
def test_dropout_that_never_drops_ends_the_training_by_its_name(dropout: float | None):
    module = RDrop(classify(bert(dropout=0.0)), sgd(), dropout=dropout)
    module._alive = False  # as in a training that nobody records
    with pytest.raises(ValueError, match="method.dropout"):
        fit(module, batches())


# ---- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [Fixed, Individual])
def test_the_penalty_is_not_flooded(flood: type[Fixed | Individual]):
    plain, both = (gradient(RDrop, bert(), batches(), alpha=alpha) for alpha in (0.0, 2.0))
    run = fit(RDrop(Floodable(bert()), sgd(lr=0.0, flood=flood(100.0))), batches())
    close(run.gradients[0], {name: both[name] - 2 * plain[name] for name in plain})


def test_the_weight_warms_up_and_the_penalty_comes_when_told():
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4}
    run = fit(RDrop(classify(bert()), sgd(lr=0.0), **options), batches() * 5)
    assert isinstance(run.module, Stateful)
    states, kept = run.module.states, (1, 4)  # passes of steps: 0; 1, 1; 2; 3, 3; 4
    assert len(states) == 7
    for first, step, share in zip(kept, (1, 3), (0.25, 0.75), strict=True):
        pair = states[first : first + 2]
        alone = fit(RDrop(classify(bert()), sgd(), alpha=2.0 * share, play=pair), batches())
        close(alone.gradients[0], run.gradients[step])


def test_the_logged_loss_is_the_mean_of_both_passes():
    run = fit(RDrop(classify(bert()), sgd()), batches())
    expected = float(sum(each.losses.mean() for each in run.module.seen)) / 2
    assert run.logs[0]["train/loss"] == pytest.approx(expected)
    assert run.logs[0]["loss/clean"] == pytest.approx(expected)


def test_it_costs_two_training_passes():
    def operations(method: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            fit(method(classify(bert(dropout=0.3, layers=2)), sgd()), batches())
        return counter.get_total_flops()

    assert RDrop(classify(bert()), sgd()).cost.relative == 2
    assert operations(RDrop) == 2 * operations(FINETUNE)


@pytest.mark.parametrize("option, value", [("alpha", -1.0), ("dropout", 1.0), ("dropout", -0.1)])
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        RDrop(classify(bert()), sgd(), **{option: value})
