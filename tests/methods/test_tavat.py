"""TAVAT against the paper's algorithm in a few lines, and what its table of words keeps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    PERTURBING,
    WORDS,
    Floodable,
    MeanPool,
    Recorder,
    Tensors,
    ascent,
    batches,
    bert,
    classify,
    close,
    cut,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    recording,
    same,
    sgd,
)
from torch import Tensor, nn

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.functional import ball
from lit_adv.methods import tavat
from lit_adv.methods.tavat import TAVAT as Method
from lit_adv.tasks.classification import Classification
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

OPTIONS: dict[str, Any] = {"steps": 3, "step_size": 0.3, "radius": 0.8, "init_size": 0.4}


TAVAT = recording(Method)


def _module(network: nn.Module, descent: Any = None, special: str = "perturb", **options: Any):
    torch.manual_seed(3)
    task = Classification(network, num_labels=2, special_tokens=special)
    return TAVAT(task, descent or sgd(lr=0.0), **{**OPTIONS, **options})


def _table(module: Recorder) -> Tensor:
    assert isinstance(module, Method)
    return module.table.clone()


def _filled(module: Recorder, size: float = 0.3) -> Recorder:
    """With rows of this length."""
    stream = torch.Generator().manual_seed(8)
    rows = torch.randn(_table(module).shape, generator=stream, dtype=torch.float64)
    module.register_buffer("table", size * rows / rows.norm(dim=1, keepdim=True))
    return module


def _reference_clip(delta: Tensor, eta: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    factors = [min(1.0, epsilon / float(n)) if n > 0 else 1.0 for n in norms(delta + eta)]
    factor = torch.tensor(factors, dtype=torch.float64).view(-1, 1, 1)
    return factor * delta, factor * eta


def _reference(
    network: nn.Module, batch: Tensors, real: Tensor, table: Tensor, start: Tensor
) -> tuple[list[Tensor], Tensors, Tensor]:
    """Li and Qiu 2021, Algorithm 1 for one batch: all perturbations, the gradient, the table."""
    ids = batch["input_ids"]
    delta, eta = _reference_clip(start, table[ids] * real.unsqueeze(-1), 0.8)
    seen: list[Tensor] = []
    for t in range(3):
        seen.append(delta + eta)
        if t == 2:
            break
        grad = ascent(lambda d: loss(network, batch, d), seen[-1])
        delta, eta = delta.clone(), eta.clone()
        for b in range(len(ids)):
            g = grad[b] * real[b].unsqueeze(-1)
            delta[b] += 0.3 * g / g.square().sum().sqrt()
            places = real[b].nonzero().flatten().tolist()
            for i in places:
                eta[b, i] += 0.3 * g[i] / g[i].square().sum().sqrt()
            lengths = {i: eta[b, i].square().sum().sqrt() for i in places}
            for i in places:
                eta[b, i] *= lengths[i] / max(lengths.values())
        delta, eta = _reference_clip(delta, eta, 0.8)
    table = table.clone()
    for word in set(ids[real].tolist()):
        table[word] = eta[(ids == word) & real].mean(0)
    objective = sum((loss(network, batch, d).mean() for d in seen), torch.zeros(())) / 3
    return seen, derivative(objective, network), table


@pytest.mark.parametrize("special", ["perturb", "keep"])
def test_perturbations_gradients_and_table_are_the_papers(
    special: str, monkeypatch: pytest.MonkeyPatch
):
    starts: list[Tensor] = []
    draw = ball.sample

    def kept(*args: Any, **options: Any) -> Tensor:
        starts.append(draw(*args, **options))
        return starts[-1]

    monkeypatch.setattr(ball, "sample", kept)
    network, data = bert(), batches(3)
    module = _module(network, special=special)
    table = _table(module).double()
    run = fit(module, data)
    for i, batch in enumerate(data):
        real = module.task.mask(batch)
        seen, expected, table = _reference(network, batch, real, table, starts[i + 1])
        close(run.module.deltas[3 * i : 3 * i + 3], seen)
        close(run.gradients[i], expected)
    close(_table(module), table)


@pytest.mark.parametrize("flood", [Fixed(9.0), Individual(0.7)])
def test_a_flood_turns_the_weights_and_never_the_perturbations(flood: Fixed | Individual):
    network, (batch,) = bert(), batches()
    plain = fit(_module(network), [batch])
    torch.manual_seed(3)
    run = fit(TAVAT(Floodable(network), sgd(lr=0.0, flood=flood), **OPTIONS), [batch])
    close(run.module.deltas, plain.module.deltas)
    close(_table(run.module), _table(plain.module))
    passes = torch.stack([loss(network, batch, delta) for delta in plain.module.deltas])
    below = passes < flood.b
    assert below.any()
    objective = torch.where(below, -passes, passes).mean()
    close(run.gradients[0], derivative(objective, network))


# ---- what it is without one of its parts ---------------------------------------------------------


def test_one_pass_from_nothing_is_plain_fine_tuning():
    module = _module(bert(), steps=1, init_size=0.0)
    module._alive = False  # nobody means to perturb anything
    same(fit(module, batches()).gradients[0], gradient(FINETUNE, bert(), batches()))


def test_without_the_words_own_perturbation_it_is_freelb(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tavat, "rescaled", torch.zeros_like)
    options = {"steps": 3, "step_size": 0.3, "radius": 0.5, "init_size": 0.4}
    module = _filled(_module(bert(), **options), size=0.0)
    run = fit(module, batches(2))
    freelb = fit(PERTURBING["freelb"](classify(bert()), sgd(lr=0.0), **options), batches(2))
    close(run.module.deltas, freelb.module.deltas)
    close(run.gradients, freelb.gradients)


def test_radius_zero_perturbs_nothing_and_is_no_failure():
    module = _module(bert(), sgd(), radius=0.0)
    module._alive = False  # as it is outside these tests: who meant to perturb something, must
    run = fit(module, batches(2))
    assert not any(delta.any() for delta in run.module.deltas)
    close(run.weights, fit(FINETUNE(classify(bert()), sgd()), batches(2)).weights)


def test_all_passes_have_the_same_dropout_masks():
    module = _module(bert(dropout=0.3), step_size=0.0, init_size=0.0)
    first, *others = fit(module, batches()).module.seen
    assert len(others) == 2
    for each in others:
        same(each.logits, first.logits)


# ---- sizes ---------------------------------------------------------------------------------------


def test_rescaled_the_longest_token_stays_and_the_others_shrink_by_their_share_of_it():
    eta = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eta[1, 3:] = 0
    eta[2] = 0
    found, length = tavat.rescaled(eta), eta.norm(dim=-1)
    close(found.norm(dim=-1)[:2], length[:2].square() / length[:2].amax(1, keepdim=True))
    close(torch.cosine_similarity(found[0], eta[0], dim=-1), torch.ones(5).double())
    longest = length[0].argmax()
    same(found[0, longest], eta[0, longest])
    same(found[2], eta[2])


def test_both_are_scaled_alike_into_the_ball_and_left_alone_inside():
    module = _module(MeanPool())
    assert isinstance(module, Method)
    stream = torch.Generator().manual_seed(0)
    delta, eta = torch.randn(2, 3, 5, 4, generator=stream, dtype=torch.float64)
    small, zero = 0.01 * delta[:1], torch.zeros(1, 5, 4).double()
    shorter, other = module.clip(torch.cat([delta, small, zero]), torch.cat([eta, small, zero]))
    close(norms(shorter + other)[:3], torch.full((3,), 0.8, dtype=torch.float64))
    close(shorter[:3] * eta, other[:3] * delta)
    same((shorter[3:], other[3:]), (torch.cat([small, zero]), torch.cat([small, zero])))


def test_an_unlimited_radius_cuts_nothing():
    run = fit(_module(bert(), radius=float("inf"), step_size=50.0), batches())
    assert (norms(run.module.deltas[-1]) > 50).all()
    assert _table(run.module).isfinite().all()


# ---- the table -----------------------------------------------------------------------------------


def test_rows_start_inside_the_ball_of_the_initial_size():
    lengths = _table(_module(MeanPool(width=64), init_size=0.4, radius=1.0)).norm(dim=1)
    assert (lengths <= 0.4).all()
    assert lengths.square().mean() == pytest.approx(0.4**2 / 3, rel=0.1)


def test_rows_have_nothing_to_do_with_the_noise_of_the_first_batch():
    network = bert().float()
    torch.manual_seed(3)
    rows = TAVAT(classify(network), sgd(), **OPTIONS)
    before = _table(rows).clone()
    torch.manual_seed(3)
    module = _filled(_module(network), size=0.0).float()
    noise = fit(module, batches(), seed=3, precision="32-true").module.deltas[0][0]
    pairs = torch.stack([before.flatten()[: noise.numel()], noise.flatten()])
    assert abs(pairs.corrcoef()[0, 1].item()) < 4 / noise.numel() ** 0.5


@pytest.mark.parametrize("pad", [0, 7])
def test_rows_of_padding_of_kept_tokens_and_of_absent_words_stay_to_the_last_bit(pad: int):
    """Also where padding has the number of a word: then only its real places count."""
    (batch,) = batches()
    real = batch["attention_mask"].bool()
    batch["input_ids"] = torch.where(real, batch["input_ids"], pad)
    batch["input_ids"][0, 2] = 7
    module = _module(bert(), special="keep")
    before = _table(module).double()
    fit(module, [batch])
    free = module.task.mask(batch)
    moved = set(batch["input_ids"][free].tolist())
    for word in range(WORDS):
        assert torch.equal(_table(module)[word], before[word]) is (word not in moved)
    assert 7 in moved and not free.all()


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 1, 1)])
def test_a_word_takes_the_mean_over_its_places_however_the_batch_is_cut(sizes: tuple[int, ...]):
    (batch,) = batches()
    words = batch["input_ids"][batch["attention_mask"].bool()]
    assert (words.bincount() > 2).any()
    whole = fit(_filled(_module(bert(), init_size=0.0)), [batch])
    descent = sgd(lr=0.0, accumulate_grad_batches=len(sizes))
    parts = fit(_filled(_module(bert(), descent, init_size=0.0)), cut(batch, *sizes))
    close(parts.gradients, whole.gradients)
    close(_table(parts.module), _table(whole.module))


def test_rows_never_leave_the_ball_and_no_word_takes_all_of_the_table():
    module = _module(MeanPool(bend=True), sgd(lr=0.05), step_size=0.5)
    fit(module, batches(150))
    lengths = _table(module)[5:].norm(dim=1)
    assert (lengths <= 0.8 * (1 + 1e-9)).all()
    assert lengths.max() < 3 * lengths.median()


def test_the_order_of_the_examples_does_not_matter_for_the_table():
    (batch,) = batches()
    turned = {name: value.flip(0) for name, value in batch.items()}
    one, other = (fit(_filled(_module(bert(), init_size=0.0)), [data]) for data in (batch, turned))
    close(_table(one.module), _table(other.module))
    assert not torch.equal(_table(one.module), _table(_filled(_module(bert()))))


def test_an_example_is_perturbed_in_a_batch_as_it_is_alone():
    (batch,) = batches()
    together = fit(_filled(_module(bert(), init_size=0.0)), [batch]).module.deltas
    for b, single in enumerate(cut(batch, 1, 1, 1, 1)):
        alone = fit(_filled(_module(bert(), init_size=0.0)), [single]).module.deltas
        close(alone, [delta[b : b + 1] for delta in together])


def test_the_table_is_saved_with_the_weights(tmp_path: Path):
    run = fit(_module(bert()), batches(2))
    run.trainer.save_checkpoint(tmp_path / "some.ckpt")
    other = _module(bert(), init_size=0.1).double()
    other.load_state_dict(torch.load(tmp_path / "some.ckpt", weights_only=False)["state_dict"])
    same(_table(other), _table(run.module))


def test_while_sizes_rise_the_rows_do_not_shrink_by_being_looked_at():
    module = _filled(_module(bert(), step_size=0.0, radius=float("inf"), warmup_steps=10))
    before = _table(module).clone()
    fit(module, batches(3))
    close(_table(module), before)


EACH_LOOK: list[dict[str, Any]] = [{}, {"update": SAM(radius=0.0)}]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_second_look_from_the_weights_themselves_finds_what_the_first_did(parts: int):
    plain, again = (
        fit(_module(bert(), sgd(accumulate_grad_batches=parts, **pieces)), batches(4))
        for pieces in EACH_LOOK
    )
    close(again.gradients, plain.gradients)
    close(_table(again.module), _table(plain.module))


def test_the_table_keeps_what_was_found_at_the_weights_themselves():
    plain, sharp = (
        fit(_module(bert(), sgd(lr=0.0, **pieces)), batches(3))
        for pieces in ({}, {"update": SAM(radius=0.5)})
    )
    assert not torch.allclose(sharp.module.deltas[4], sharp.module.deltas[1])
    close(_table(sharp.module), _table(plain.module))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_difference_of_two_looks_is_that_of_the_weights_alone(parts: int):
    found = []
    for radius in (1e-4, 1e-5):
        descent = sgd(accumulate_grad_batches=parts, update=GradientPenalty(0.1, radius=radius))
        found.append(fit(_module(bert(), descent), batches(2)).gradients[0])
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "option, value",
    [("steps", 0), ("steps", 1.5), ("step_size", -0.1), ("radius", -1.0), ("init_size", -0.1)],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        TAVAT(classify(MeanPool()), sgd(), **{option: value})


def test_the_start_of_the_instance_is_drawn_inside_its_ball():
    run = fit(_filled(_module(bert()), size=0.0), batches())
    start = run.module.deltas[0]
    assert start.any() and (norms(start) <= 0.4).all()
    close(ball.project(start, 0.8), start)
