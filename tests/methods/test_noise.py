"""NEFTune: the noise's law, and the gradient at the noisy inputs."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    MeanPool,
    answer,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    recording,
    same,
    sgd,
)
from torch import Tensor

from lit_adv.functional import ball
from lit_adv.methods.noise import Noise as Method
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch
from lit_adv.updates.sam import SAM

Noise = partial(recording(Method), alpha=2.0)


@pytest.mark.parametrize("build", [bert, partial(MeanPool, bend=True)])
def test_the_gradient_is_that_at_the_noisy_inputs(build: Any):
    network, (batch,) = build(), batches()
    run = fit(Noise(classify(network), sgd(lr=0.0)), [batch])
    (seen,) = run.module.seen
    close(run.gradients[0], derivative(loss(network, batch, seen.delta).mean(), network))
    assert run.logs[0]["train/loss"] == pytest.approx(float(seen.losses.mean()))
    assert run.logs[0]["perturbation/norm"] == pytest.approx(float(norms(seen.moved).mean()))


def _drawn(size: int = 400, width: int = 8) -> tuple[Tensor, Tensor]:
    """Much noise at once, and how many tokens each example has."""
    (batch,) = batches(size=size, tokens=12)
    run = fit(Noise(classify(MeanPool(width=width)), sgd()), [batch])
    return run.module.deltas[0], batch["attention_mask"].double().sum(1)


def test_noise_is_uniform_within_a_box_that_shrinks_with_the_length():
    """The length without padding: the box of a padded example is as wide as that of a short one."""
    noise, tokens = _drawn()
    places = torch.arange(12) < tokens.unsqueeze(1)
    assert not noise[~places].any() and (noise[places] != 0).all()

    halves = 2.0 / (8 * tokens).sqrt()
    unit = (noise / halves.view(-1, 1, 1))[places].flatten()
    count = len(unit)
    assert unit.abs().max() <= 1 + 1e-12
    assert unit.mean() == pytest.approx(0, abs=4 * (1 / 3 / count) ** 0.5)
    assert unit.square().mean() == pytest.approx(1 / 3, abs=4 * (4 / 45 / count) ** 0.5)
    ranks = (torch.arange(count) + 0.5) / count  # Kolmogorov and Smirnov, at a level of 1e-5
    assert ((unit.sort().values + 1) / 2 - ranks).abs().max() < 2.5 / count**0.5


@pytest.mark.parametrize("tokens", [3, 7, 12])
def test_the_mean_square_of_an_examples_noise_is_a_third_of_alphas_whatever_its_length(tokens: int):
    noise, lengths = _drawn(size=2000)
    square = norms(noise)[lengths == tokens].square()
    coordinates = 8 * tokens
    spread = (4.0**2 * 4 / 45 / coordinates / len(square)) ** 0.5
    assert square.mean() == pytest.approx(4 / 3, abs=4 * spread)
    assert square.max() <= 4 * (1 + 1e-12)


def test_the_same_noise_on_the_real_tokens_gives_the_same_gradient_with_more_padding(
    monkeypatch: pytest.MonkeyPatch,
):
    (short,) = batches()
    long = {k: v if k == "labels" else F.pad(v, (0, 5)) for k, v in short.items()}
    whole, draw = long["attention_mask"].bool(), ball.sample

    def part(mask: Tensor, *args: Any, **options: Any) -> Tensor:
        return draw(whole, *args, **options)[:, : mask.shape[1]]

    monkeypatch.setattr(ball, "sample", part)
    one, other = (fit(Noise(classify(bert()), sgd()), [batch]) for batch in (short, long))
    close(one.module.deltas[0], other.module.deltas[0][:, :7])
    close(one.gradients, other.gradients)


class Linear(Classification):
    """A loss that is linear in the word vectors, if the network is."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits[:, 1] - logits[:, 0]


def test_with_a_linear_loss_the_noise_adds_to_the_gradient_only_its_mean_which_is_zero():
    (batch,) = batches(size=500)
    clean, noisy = (
        fit(method(Linear(MeanPool(), num_labels=2), sgd(lr=0.0)), [batch])
        for method in (FINETUNE, Noise)
    )
    mean = (noisy.module.deltas[0].sum(1) / batch["attention_mask"].sum(1, keepdim=True)).mean(0)
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    plain, found = clean.gradients[0], noisy.gradients[0]
    close(found.pop("network.head.weight"), plain.pop("network.head.weight") + signs.outer(mean))
    close(found, plain)
    assert mean.abs().max() < 4 * 2.0 / (3 * 4 * 3 * 3 * 500) ** 0.5


# ---- when ----------------------------------------------------------------------------------------


def test_without_noise_it_is_plain_fine_tuning():
    """Also with dropout: the noise is not drawn from dropout's stream."""
    plain = gradient(FINETUNE, bert(dropout=0.3), batches())
    same(gradient(Noise, bert(dropout=0.3), batches(), alpha=0.0), plain)


def test_the_stream_of_dropout_goes_on_as_in_plain_fine_tuning():
    states = []
    for method in (FINETUNE, Noise):
        fit(method(classify(bert(dropout=0.3)), sgd()), batches(2))
        states.append(torch.get_rng_state())
    same(*states)


def test_evaluation_is_without_noise():
    network, (batch,) = MeanPool(bend=True), batches()
    run = fit(Noise(classify(network), sgd(lr=0.0), alpha=50.0), [batch], validation=[batch])
    clean = loss(network, batch).mean().item()
    assert run.logs[0]["train/loss"] != pytest.approx(clean, rel=1e-3)
    assert float(run.trainer.callback_metrics["val/loss"]) == pytest.approx(clean)
    close(run.module(batch), answer(network, batch))
    assert not network.words._forward_hooks


def test_every_batch_is_passed_once_with_noise_of_its_own():
    run = fit(Noise(classify(bert()), sgd(lr=0.0)), batches() * 3)
    one, two, three = run.module.seen
    assert run.module.cost == (1, 1, 1)
    for first, second in ((one, two), (two, three)):
        assert not (first.moved == second.moved)[first.moved != 0].any()


def test_a_second_look_at_a_batch_sees_the_same_noise():
    run = fit(Noise(classify(bert(dropout=0.3)), sgd(update=SAM(radius=0.0))), batches(2))
    first, again, second, again_too = run.module.seen
    same([again.moved, again.logits], [first.moved, first.logits])
    same([again_too.moved, again_too.logits], [second.moved, second.logits])
    assert not torch.equal(first.moved, second.moved)


def test_noise_begins_and_grows_when_told(monkeypatch: pytest.MonkeyPatch):
    def largest(mask: Tensor, width: int, size: float, *_: Any) -> Tensor:
        coordinate = size * mask / (mask.sum(1, keepdim=True) * width).sqrt()
        return coordinate.unsqueeze(-1).expand(-1, -1, width)

    monkeypatch.setattr(ball, "sample", largest)
    options = {"start_step": 1, "every_n_steps": 2, "warmup_steps": 4, "alpha": 0.4}
    run = fit(Noise(classify(MeanPool()), sgd(), **options), batches(6))
    sizes = [0.0 if seen.delta is None else float(norms(seen.delta)[0]) for seen in run.module.seen]
    assert sizes == pytest.approx([0, 0.1, 0, 0.3, 0, 0.4])


def test_micro_batches_give_the_mean_of_their_gradients():
    network, data = bert(), batches(3)
    run = fit(Noise(classify(bert()), sgd(accumulate_grad_batches=3)), data)
    pairs = zip(data, run.module.deltas, strict=True)
    objective = torch.cat([loss(network, batch, delta) for batch, delta in pairs]).mean()
    close(run.gradients, [derivative(objective, network)])


def test_a_proximal_penalty_is_taken_at_the_clean_input_with_the_same_dropout_masks():
    module = Noise(classify(bert(dropout=0.3)), sgd(proximal=MBPP(weight=1.0)), alpha=0.0)
    noisy, held = fit(module, batches()).module.seen
    assert held.delta is None and held.trains
    same(held.logits, noisy.logits)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="method.alpha=-1.0"):
        Noise(classify(MeanPool()), sgd(), alpha=-1.0)
