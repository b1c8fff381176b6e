"""Free adversarial training against steps by hand in plain PyTorch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    PERTURBING,
    Floodable,
    MeanPool,
    Method,
    Recorder,
    Tensors,
    ascent,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    gradient,
    loss,
    norms,
    recording,
    same,
    sgd,
    weights,
)
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from lit_adv.descent import Descent, Schedule
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.methods.free_at import FreeAT as Free
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch
from lit_adv.updates.sam import SAM

FreeAT: Method = partial(
    recording(Free),
    replays=3,
    step_size=0.3,
    radius=0.5,
    init_size=0.0,
    norm="l2",
    persist=False,
)

Rule = Callable[[list[nn.Parameter]], Optimizer]
RULES: dict[str, Rule] = {
    "sgd": partial(SGD, lr=0.2),
    "momentum": partial(SGD, lr=0.1, momentum=0.9),
    "adam": partial(Adam, lr=0.02, eps=1e-3),
}


def _reference_step(delta: Tensor, grad: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return (delta + 0.3 * grad.sign()).clamp(-0.5, 0.5)
    moved = delta + 0.3 * grad / norms(grad).view(-1, 1, 1)
    size = norms(moved).view(-1, 1, 1)
    return torch.where(size > 0.5, moved * 0.5 / size, moved)


def _reference_free(
    network: nn.Module, data: list[Tensors], rule: Rule, norm: str, flood: Flood
) -> list[Tensor]:
    """Shafahi et al. 2019, Algorithm 1, delta anew for every batch: all that it passes through."""
    optimizer, deltas = rule(list(network.parameters())), []
    for batch in data:
        delta = torch.zeros(*batch["input_ids"].shape, 16).double()
        for _ in range(3):
            deltas.append(delta)
            grad = ascent(lambda d, batch=batch: loss(network, batch, d), delta)
            losses = loss(network, batch, delta)
            if isinstance(flood, Fixed):
                losses = (losses.mean() - flood.b).abs()
            elif isinstance(flood, Individual):
                losses = (losses - flood.b).abs()
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()  # at once with delta: both gradients are of the weights before
            delta = _reference_step(delta, grad, norm)
    return deltas


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_weights_and_perturbations_are_the_papers(rule: str, norm: str):
    network, data = bert(), batches(2)
    expected = _reference_free(network, data, RULES[rule], norm, NoFlood())
    descent = Descent(optimizer=RULES[rule], schedule=sgd().schedule)  # pyright: ignore
    run = fit(FreeAT(classify(bert()), descent, norm=norm), data)
    close(run.module.deltas, expected)
    close(run.weights, {f"network.{name}": value for name, value in weights(network).items()})


@pytest.mark.parametrize("flood", [Fixed(1.0), Fixed(9.0), Individual(1.0)])
def test_every_replay_is_flooded_by_its_own_loss_and_the_perturbation_never(flood: Flood):
    network, data = bert(), batches(2)
    expected = _reference_free(network, data, RULES["sgd"], "l2", flood)
    run = fit(FreeAT(Floodable(bert()), sgd(lr=0.2, flood=flood)), data)
    close(run.module.deltas, expected)
    close(run.weights, {f"network.{name}": value for name, value in weights(network).items()})


def test_every_replays_gradient_is_clipped():
    network, (batch,) = bert(), batches()
    delta = torch.zeros(4, 7, 16).double()
    optimizer = SGD(network.parameters(), lr=0.2)
    for _ in range(3):
        grad = ascent(lambda d: loss(network, batch, d), delta)
        optimizer.zero_grad()
        loss(network, batch, delta).mean().backward()
        assert nn.utils.clip_grad_norm_(network.parameters(), 0.5) > 0.5
        optimizer.step()
        delta = _reference_step(delta, grad, "l2")
    run = fit(FreeAT(classify(bert()), sgd(lr=0.2, gradient_clip_val=0.5)), [batch])
    expected = {f"network.{name}": value for name, value in weights(network).items()}
    torch.testing.assert_close(run.weights, expected, rtol=1e-5, atol=1e-6)  # clipping adds 1e-6


# ---- what it is in other words -------------------------------------------------------------------


def test_while_the_weights_stand_still_the_perturbation_is_pgds():
    options = {"step_size": 0.2, "radius": 0.5}
    module = FreeAT(classify(bert()), sgd(lr=0.0), replays=4, persist=True, **options)
    run = fit(module, batches())
    pgd = PERTURBING["pgd_b"](classify(bert()), sgd(lr=0.0), steps=4, init_size=0.0, **options)
    close([*run.module.deltas, _kept(module)], fit(pgd, batches()).module.deltas)


def test_one_replay_from_zero_is_plain_fine_tuning():
    plain = fit(FINETUNE(classify(bert()), sgd()), batches(2))
    run = fit(FreeAT(classify(bert()), sgd(), replays=1), batches(2))
    same(run.gradients, plain.gradients)
    same(run.weights, plain.weights)


class Bilinear(Classification):
    """The answer itself is the loss."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits[:, 0]


@pytest.mark.parametrize("replays", [1, 2, 5])
def test_on_a_bilinear_loss_the_perturbation_has_its_closed_form(replays: int):
    network, (batch,) = MeanPool(labels=1), batches()
    options = {"replays": replays, "norm": "linf", "step_size": 0.2, "radius": 0.5}
    module = FreeAT(Bilinear(network, num_labels=2), sgd(lr=0.0), persist=True, **options)
    fit(module, [batch])
    signs = batch["attention_mask"].unsqueeze(-1) * network.head.weight.sign()
    close(_kept(module), min(0.2 * replays, 0.5) * signs)


# ---- counting ------------------------------------------------------------------------------------


def test_a_batch_is_one_step_of_the_trainer_and_as_many_of_the_optimizer_as_replays():
    linear = Schedule(name="linear", warmup=0.0)
    module = FreeAT(classify(bert()), Descent(optimizer=partial(SGD, lr=0.8), schedule=linear))
    run = fit(module, batches(4))
    assert run.trainer.global_step == 4
    assert len(run.module.seen) == len(run.gradients) == 12
    assert all(each.trains for each in run.module.seen)
    assert run.rates == pytest.approx([rate for rate in (0.8, 0.6, 0.4, 0.2) for _ in range(3)])


def test_training_ends_at_the_number_of_batches_asked_for():
    run = fit(FreeAT(classify(bert()), sgd()), batches(4), max_steps=2)
    assert run.trainer.global_step == 2 and len(run.gradients) == 6


def test_the_first_attack_is_counted_in_batches():
    run = fit(FreeAT(classify(bert()), sgd(), start_step=2), batches(3))
    assert len(run.gradients) == 1 + 1 + 3


def test_the_mean_teacher_follows_once_per_batch():
    proximal = MBPP(weight=1e-9, beta=0.5, late_beta=0.5)
    run = fit(FreeAT(classify(bert()), sgd(proximal=proximal)), batches())
    assert proximal.teacher is not None
    before = classify(bert()).state_dict()
    for name, value in proximal.teacher.weights.items():
        close(value, (before[name] + run.weights[name]) / 2)


def test_all_replays_draw_the_same_dropout_masks():
    module = FreeAT(classify(bert(dropout=0.3)), sgd(lr=0.0), step_size=0.0)
    first, *others = fit(module, batches()).module.seen
    for each in others:
        same(each.logits, first.logits)


def test_updates_that_look_twice_and_batches_in_parts_are_refused():
    with pytest.raises(ValueError, match="update=SAM: .* steps several times per batch"):
        FreeAT(classify(bert()), sgd(update=SAM()))
    with pytest.raises(ValueError, match="accumulate_grad_batches=2: .*several times per batch"):
        FreeAT(classify(bert()), sgd(accumulate_grad_batches=2))


# ---- from batch to batch -------------------------------------------------------------------------


def _kept(module: Recorder) -> Tensor:
    assert isinstance(module, Free) and module._delta is not None
    return module._delta


def _full(count: int, size: int = 4) -> list[Tensors]:
    """Batches without padding."""
    data = batches(count, size)
    for batch in data:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    return data


@pytest.mark.parametrize("persist", [False, True])
def test_the_perturbation_goes_on_with_the_next_batch_or_starts_anew(persist: bool):
    network, data = bert(), _full(2)
    run = fit(FreeAT(classify(network), sgd(lr=0.0), persist=persist), data)
    last, first = run.module.deltas[2:4]
    if not persist:
        assert not first.any()
        return
    ahead = ascent(lambda d: loss(network, data[0], d), last)
    close(first, _reference_step(last, ahead, "l2"))


def test_a_smaller_last_batch_takes_its_part_and_leaves_the_others_theirs():
    data = [*_full(1), *cut(_full(2)[1], 1, 3)[1:]]
    module = FreeAT(classify(bert()), sgd(lr=0.0), persist=True)
    once = FreeAT(classify(bert()), sgd(lr=0.0), persist=True)
    fit(module, data)
    fit(once, data[:1])
    same(module.deltas[3], _kept(once)[:3])
    same(_kept(module)[3:], _kept(once)[3:])
    assert (_kept(module)[:3] != _kept(once)[:3]).any()


@pytest.mark.parametrize("special", ["perturb", "keep"])
def test_what_may_not_be_perturbed_in_the_next_batch_is_not(special: str):
    (first,), (second,) = _full(1), batches()
    assert not second["attention_mask"].all()
    task = Classification(MeanPool(leak=True), num_labels=2, special_tokens=special)
    module = FreeAT(task, sgd(lr=0.0), persist=True)
    first["special_tokens_mask"] = torch.zeros_like(first["special_tokens_mask"])
    run = fit(module, [first, second])
    for delta in run.module.deltas[3:]:
        assert not delta[~task.mask(second)].any()
        assert delta.any()


def test_while_sizes_rise_all_ascents_of_a_batch_are_as_long():
    options = {"replays": 2, "step_size": 0.4, "radius": float("inf"), "warmup_steps": 4}
    module = FreeAT(classify(MeanPool()), sgd(lr=0.0), persist=True, **options)
    deltas = fit(module, _full(1) * 3).module.deltas
    lengths = torch.stack([norms(delta) for delta in [*deltas, _kept(module)]])
    expected = 0.4 * torch.tensor([0.0, 0.25, 0.5, 1.0, 1.5, 2.25, 3.0], dtype=torch.float64)
    close(lengths, expected.unsqueeze(1).expand(7, 4))


@pytest.mark.parametrize("shape", [{"size": 5}, {"tokens": 8}])
def test_a_batch_of_another_shape_is_refused(shape: dict[str, int]):
    module = FreeAT(classify(bert()), sgd(), persist=True)
    with pytest.raises(ValueError, match="persist=true: a batch of shape . x . after one of 4 x 7"):
        fit(module, [*batches(), *batches(**shape)])


def test_a_training_resumed_goes_on_with_the_perturbation(tmp_path: Path):
    def module() -> Recorder:
        return FreeAT(classify(bert()), sgd(), persist=True)

    whole = fit(module(), _full(2), epochs=2)
    half = fit(module(), _full(2), epochs=1)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest = fit(module(), _full(2), epochs=2, resume=str(tmp_path / "half.ckpt"))
    close(rest.module.deltas, whole.module.deltas[6:])
    close(rest.weights, whole.weights)


def test_a_random_start_is_drawn_for_every_batch():
    run = fit(FreeAT(classify(bert()), sgd(lr=0.0), init_size=0.4), batches() * 2)
    first, second = run.module.deltas[0], run.module.deltas[3]
    assert first.any() and second.any() and not torch.equal(first, second)
    network, (batch,) = bert(), batches()
    ahead = ascent(lambda d: loss(network, batch, d), first)
    close(run.module.deltas[1], _reference_step(first, ahead, "l2"))


@pytest.mark.parametrize(
    "option, value",
    [
        ("replays", 0),
        ("replays", 1.5),
        ("step_size", -0.1),
        ("radius", -1.0),
        ("init_size", -0.1),
        ("norm", "l1"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: Any):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        FreeAT(classify(MeanPool()), sgd(), **{option: value})


def test_the_first_replays_gradient_is_the_plain_one():
    run = fit(FreeAT(classify(bert()), sgd()), batches())
    same(run.gradients[0], gradient(FINETUNE, bert(), batches()))
