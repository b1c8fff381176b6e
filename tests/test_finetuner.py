"""The seams of FineTuner: from the gradient of a batch to the weights, and to the checkpoint."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import (
    FINETUNE,
    METHODS,
    PERTURBING,
    Floodable,
    MeanPool,
    Recorder,
    Run,
    Stream,
    Tensors,
    answer,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    same,
    scaled,
    sgd,
    weights,
    with_spearman,
    without_lightnings_own_warnings,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.methods.finetune import FineTune
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.proximal import Proximal
from lit_adv.proximal.vbpp import VBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression

every_method = pytest.mark.parametrize("name", METHODS)


# ---- the step ------------------------------------------------------------------------------------


def _linear(step: int, warmup: int, total: int) -> float:
    """Share of the learning rate at this step (from 0): up to 1, and down to 0."""
    return step / warmup if step < warmup else (total - step) / (total - warmup)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_is_a_bare_pytorch_loop(dropout: float):
    data, epochs = batches(5), 2
    network = bert(dropout)
    torch.manual_seed(0)
    groups = [
        {"params": [w for w in network.parameters() if w.ndim >= 2], "weight_decay": 0.1},
        {"params": [w for w in network.parameters() if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.99), eps=1e-6)
    for step in range(epochs * len(data)):
        network.train()
        batch = data[step % len(data)]
        logits = network(batch["input_ids"], batch["attention_mask"]).logits
        nn.functional.cross_entropy(logits, batch["labels"]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * _linear(step, 2, 10)
        optimizer.step()
        optimizer.zero_grad()

    descent = Descent(
        optimizer=partial(adamw, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
        schedule=Schedule(name="linear", warmup=0.2),
        gradient_clip_val=1.5,
        gradient_clip_algorithm="norm",
    )
    run = fit(FINETUNE(classify(bert(dropout)), descent), data, epochs=epochs)
    close(run.weights, weights(classify(network)))


STEPS = [("finetune", parts) for parts in (1, 2, 8, 100)] + [(name, 3) for name in METHODS]


@pytest.mark.parametrize("name, parts", STEPS)
def test_there_is_one_optimizer_step_per_effective_batch(name: str, parts: int):
    module = METHODS[name](classify(MeanPool()), sgd(accumulate_grad_batches=parts))
    run = fit(module, batches(8), epochs=2)
    steps = 2 * math.ceil(8 / parts)
    assert run.trainer.global_step == len(run.gradients) == module.total_steps == steps


def test_an_epochs_last_window_is_the_mean_over_its_fewer_batches():
    network, data = bert(), batches(5)
    run = fit(FINETUNE(classify(network), sgd(lr=0.0, accumulate_grad_batches=3)), data)
    for grads, window in zip(run.gradients, (data[:3], data[3:]), strict=True):
        mean = torch.stack([loss(network, batch).mean() for batch in window]).mean()
        close(grads, derivative(mean, network))


def test_training_ends_at_max_steps():
    module = FINETUNE(classify(MeanPool()), sgd(accumulate_grad_batches=2))
    run = fit(module, batches(8), epochs=-1, max_steps=6)
    assert run.trainer.global_step == len(run.gradients) == module.total_steps == 6


def test_gradients_do_not_outlive_their_step():
    apart = fit(FINETUNE(classify(bert()), sgd(lr=0.0)), batches(2))
    alone = fit(FINETUNE(classify(bert()), sgd(lr=0.0)), batches(2)[1:])
    same(apart.gradients[1], alone.gradients[0])


def test_matrices_decay_and_vectors_do_not():
    """Without a gradient, AdamW only shrinks: what decays, by `1 - lr * weight_decay`."""

    class Indifferent(Classification):
        def losses(self, logits: Tensor, batch: Any) -> Tensor:
            return 0.0 * logits.sum(-1)

    task = Indifferent(bert(), num_labels=2)
    descent = sgd(optimizer=partial(adamw, lr=0.1, weight_decay=0.5))
    before = weights(task)
    after = fit(FINETUNE(task, descent), batches()).weights
    for name, weight in before.items():
        close(after[name], weight * (0.95 if weight.ndim == 2 else 1.0))


def test_every_weight_that_trains_is_in_one_group_and_no_other_weight_in_any():
    network = bert()
    network.bert.embeddings.requires_grad_(False)
    run = fit(FINETUNE(classify(network), sgd()), batches())
    (optimizer,) = run.trainer.optimizers
    grouped = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    training = [id(weight) for weight in network.parameters() if weight.requires_grad]
    assert sorted(grouped) == sorted(training)


@every_method
def test_frozen_weights_stay_and_do_not_keep_the_others_from_training(name: str):
    network = bert()
    network.bert.embeddings.requires_grad_(False)
    before = weights(classify(network))
    run = fit(METHODS[name](classify(network), sgd()), batches(2))
    for key, weight in run.weights.items():
        assert torch.equal(weight, before[key]) == (".embeddings." in key)
    frozen = {key for key in before if ".embeddings." in key}
    assert set(run.gradients[0]) == set(before) - frozen
    assert all(not weight.requires_grad for weight in network.bert.embeddings.parameters())

    trained = fit(METHODS[name](classify(bert()), sgd()), batches(2))
    close(run.gradients[0], {key: trained.gradients[0][key] for key in run.gradients[0]})


# ---- clipping ------------------------------------------------------------------------------------


def _norm(tensors: Tensors) -> Tensor:
    return torch.stack([value.square().sum() for value in tensors.values()]).sum().sqrt()


def _moved(name: str, **options: Any) -> tuple[Tensors, Tensors]:
    """The gradient of one step before clipping, and what plain descent at rate 1 then took off."""
    task = classify(bert())
    before = weights(task)
    descent = sgd(lr=1.0, accumulate_grad_batches=2, proximal=MBPP(weight=1.0), **options)
    run = fit(METHODS[name](task, descent), batches(2))
    return run.gradients[0], {key: before[key] - run.weights[key] for key in before}


@pytest.mark.parametrize("name", [n for n in METHODS if n != "infobert"])  # and its critic
def test_clipping_by_norm_bounds_the_gradient_of_the_effective_batch(name: str):
    grads, moved = _moved(name, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
    assert _norm(grads) > 0.2
    close(_norm(moved), torch.tensor(0.1).double(), rtol=1e-5)
    close(moved, scaled(grads, float(0.1 / (_norm(grads) + 1e-6))))


@every_method
def test_clipping_by_value_bounds_every_coordinate(name: str):
    grads, moved = _moved(name, gradient_clip_val=0.01, gradient_clip_algorithm="value")
    assert max(float(grad.abs().max()) for grad in grads.values()) > 0.02
    close(moved, {key: grad.clamp(-0.01, 0.01) for key, grad in grads.items()})


def test_a_gradient_within_the_bound_is_not_clipped():
    grads, moved = _moved("finetune", gradient_clip_val=1e6)
    close(moved, grads)


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.1), partial(adamw, lr=0.1)])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_in_float16_what_is_clipped_is_the_gradient_without_the_loss_scale(
    optimizer: Any, clip: float | None
):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    descent = sgd(optimizer=optimizer, gradient_clip_val=clip)
    half = fit(
        FINETUNE(classify(bert().float()), descent), batches(), precision=None, plugins=[plugin]
    )
    full = gradient(FINETUNE, bert(), batches())
    assert float(_norm(half.gradients[0])) == pytest.approx(float(_norm(full)), rel=0.01)


# ---- the schedule --------------------------------------------------------------------------------


def _rates(schedule: Schedule, count: int = 6, epochs: int = 2, **options: Any) -> list[float]:
    descent = sgd(lr=1.0, schedule=schedule, **options)
    return fit(FINETUNE(classify(MeanPool()), descent), batches(count), epochs=epochs).rates


def test_the_rate_rises_and_falls_linearly_over_the_optimizer_steps():
    rates = _rates(Schedule(name="linear", warmup=0.25))
    assert rates == pytest.approx([_linear(step, 3, 12) for step in range(12)])


def test_a_schedule_counts_optimizer_steps_and_not_batches():
    rates = _rates(Schedule(name="linear", warmup=0.0), accumulate_grad_batches=4)
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_schedule_of_frequency_two_moves_at_every_second_step():
    rates = _rates(Schedule(name="linear", warmup=0.0, frequency=2))
    assert rates == pytest.approx([_linear(step // 2, 0, 6) for step in range(12)])


@pytest.mark.parametrize("frequency", [1, 2])
def test_a_schedule_by_epoch_moves_between_epochs(frequency: int):
    schedule = Schedule(name="linear", warmup=0.0, interval="epoch", frequency=frequency)
    rates = _rates(schedule, count=3, epochs=4)
    units = 4 // frequency
    expected = [_linear(epoch // frequency, 0, units) for epoch in range(4) for _ in range(3)]
    assert rates == pytest.approx(expected)


def test_a_schedule_ends_with_max_steps():
    schedule = Schedule(name="linear", warmup=0.0)
    for epochs in (-1, 5):
        module = FINETUNE(classify(MeanPool()), sgd(lr=1.0, schedule=schedule))
        run = fit(module, batches(4), epochs=epochs, max_steps=5)
        assert run.rates == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_on_a_plateau_the_rate_falls_as_pytorch_says():
    """Labels turned round: the better the training, the worse the validation."""
    data, turned = batches(), batches()
    turned[0]["labels"] = 1 - turned[0]["labels"]
    schedule = Schedule(name="reduce_lr_on_plateau", warmup=0.0, interval="epoch")
    seen: list[float] = []

    class Watch(L.Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen.append(float(trainer.callback_metrics["val/loss"]))

    module = FINETUNE(classify(MeanPool()), sgd(lr=0.01, schedule=schedule))
    run = fit(module, data, epochs=26, validation=turned, callbacks=[Watch()])

    bare = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    plateau, expected = ReduceLROnPlateau(bare), []
    for value in seen:
        expected.append(bare.param_groups[0]["lr"])
        plateau.step(value)
    assert run.rates == pytest.approx(expected)
    assert min(run.rates) == pytest.approx(1e-4)


# ---- flooding ------------------------------------------------------------------------------------

# Only the first training pass has task losses; the others are for penalties, which are not flooded.
PENALISING = {"smart", "vat", "r3f", "rdrop", "llr", "input_gradient_penalty"}
# The passes share one objective.
AVERAGING = {"freelb", "freelb_pp", "tavat", "infobert", "yopo"}


@every_method
@pytest.mark.parametrize("flood", [Fixed(1e3), Individual(1e3)])
@pytest.mark.parametrize("parts", [1, 2])
def test_below_the_level_weights_climb_and_delta_still_climbs(
    name: str, flood: Fixed | Individual, parts: int
):
    data = batches(2)
    dry, wet = (
        fit(
            METHODS[name](
                Floodable(MeanPool(bend=True)),
                sgd(lr=0.0, accumulate_grad_batches=parts, **options),
            ),
            data,
        )
        for options in ({}, {"flood": flood})
    )
    same(wet.module.deltas, dry.module.deltas)
    wet_logs, dry_logs = (run.logs[parts - 1 :: parts] for run in (wet, dry))
    for wet_log, dry_log in zip(wet_logs, dry_logs, strict=True):
        assert wet_log["flood/share"] == pytest.approx(1)
        assert wet_log["train/loss"] == dry_log["train/loss"]
    for wet_grads, dry_grads in zip(wet.gradients, dry.gradients, strict=True):
        if name not in {*PENALISING, "infobert"} or name == "rdrop":  # no dropout, no penalty
            same(wet_grads, scaled(dry_grads, -1))


@pytest.mark.parametrize("flood", [Fixed(1e3), Individual(1e3)])
@pytest.mark.parametrize("parts", [1, 2])
def test_penalties_are_not_flooded(flood: Fixed | Individual, parts: int):
    def train(name: str, **options: Any) -> Tensors:
        descent = sgd(lr=0.0, accumulate_grad_batches=parts, **options)
        return fit(METHODS[name](Floodable(bert()), descent), batches(parts)).gradients[0]

    plain, smart = train("finetune"), train("smart")
    penalty = {name: smart[name] - plain[name] for name in plain}
    wet = train("smart", flood=flood)
    close(wet, {name: penalty[name] - plain[name] for name in plain})


@pytest.mark.parametrize("name", [n for n in METHODS if n != "yopo_pmp"])  # two sets of weights
def test_an_example_below_the_level_is_climbed_and_one_above_is_descended(name: str):
    """A level that cuts the batch in two; in methods of several passes, each pass by itself."""
    (batch,), level = batches(size=6), 1.0

    def train(flood: Flood) -> tuple[Run, Tensors, Tensor]:
        """And the gradient of the task's losses alone, by hand."""
        network = bert()
        run = fit(METHODS[name](Floodable(network), sgd(lr=0.0, flood=flood)), [batch])
        trained = [each for each in run.module.seen if each.trains]
        trained = trained[:1] if name in PENALISING else trained
        share = 1 / len(trained) if name in AVERAGING else 1.0
        losses = torch.stack([loss(network, batch, each.delta) for each in trained])
        slopes = (losses.detach() - level).sign() if flood.of else torch.ones_like(losses)
        total = share * (losses * slopes).mean(1).sum()
        return run, derivative(total, network), losses.detach() < level

    wet, climbed_and_descended, below = train(Individual(level))
    dry, descended, _ = train(NoFlood())
    for key, grad in climbed_and_descended.items():
        # What is not the task's loss is descended as ever.
        close(wet.gradients[0][key] - grad, dry.gradients[0][key] - descended[key])
    assert wet.logs[0]["flood/share"] == pytest.approx(float(below.double().mean()))
    assert below.any() and not below.all()


def test_below_the_level_the_loss_rises_and_above_it_falls():
    flood = Fixed(0.5)
    module = FINETUNE(Floodable(MeanPool()), sgd(lr=0.3, flood=flood))
    losses = [log["train/loss"] for log in fit(module, batches(), epochs=60).logs]
    steps = list(zip(losses, losses[1:], strict=False))
    assert any(now < 0.5 for now, _ in steps)
    for now, then in steps:
        assert (then > now) == (now < 0.5)
    assert abs(losses[-1] - 0.5) < 0.05


@pytest.mark.parametrize("flood", [Fixed(0.7), Individual(0.7)])
def test_a_level_at_which_nothing_is_learned_is_refused(flood: Fixed | Individual):
    with pytest.raises(ValueError, match=r"flood\.b=0\.7: not below 0\.693"):
        FineTune(classify(MeanPool()), sgd(flood=flood))


# ---- proximal ------------------------------------------------------------------------------------


class Follow(L.Callback):
    """The weights, and those of the reference, at the end of every batch."""

    def __init__(self) -> None:
        self.weights: list[Tensors] = []
        self.reference: list[Tensors] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Recorder)
        teacher = pl_module.descent.proximal.teacher
        assert teacher is not None
        self.weights.append(weights(pl_module.task))
        self.reference.append({name: value.clone() for name, value in teacher.weights.items()})


def _follow(proximal: Proximal, parts: int = 1) -> tuple[Tensors, Follow]:
    task, path = classify(MeanPool()), Follow()
    start = weights(task)
    module = FINETUNE(task, sgd(proximal=proximal, accumulate_grad_batches=parts))
    fit(module, batches(10 * parts), callbacks=[path])
    return start, path


@pytest.mark.parametrize("parts", [1, 3])
def test_the_mean_teacher_follows_once_per_optimizer_step(parts: int):
    proximal = MBPP(weight=1.0, beta=0.5, late_beta=0.9, switch=0.3)
    expected, path = _follow(proximal, parts)
    for step in range(10):
        beta = 0.5 if step < 3 else 0.9
        now = path.weights[parts * step + parts - 1]
        expected = {name: beta * expected[name] + (1 - beta) * now[name] for name in now}
        close(path.reference[parts * step + parts - 1], expected)
        if parts > 1 and step:
            same(path.reference[parts * step], path.reference[parts * step - 1])


@pytest.mark.parametrize("parts", [1, 3])
def test_the_reference_is_refreshed_every_few_optimizer_steps(parts: int):
    expected, path = _follow(VBPP(weight=1.0, steps=4), parts)
    for step in range(10):
        if (step + 1) % 4 == 0:
            expected = path.weights[parts * step + parts - 1]
        same(path.reference[parts * step + parts - 1], expected)


def test_a_teacher_that_forgets_nothing_is_the_network_before_training():
    start, path = _follow(MBPP(weight=1.0, beta=1.0, late_beta=1.0))
    for reference in path.reference:
        same(reference, start)


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_the_reference_answers_without_dropout_and_leaves_the_mode_as_it_is():
    network, (batch,) = bert(dropout=0.4), batches()
    module = FINETUNE(classify(network), sgd(lr=0.0, proximal=MBPP(weight=1.0)))
    network.bert.encoder.eval()
    modes = [module.training for module in network.modules()]
    run = fit(module, [batch])
    assert [module.training for module in network.modules()] == modes

    network.eval()
    p = run.module.seen[0].logits.log_softmax(-1)
    q = answer(network, batch).detach().log_softmax(-1)
    apart = ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()
    assert apart > 0.01
    assert run.logs[0]["proximal/divergence"] == pytest.approx(float(apart))


def test_no_gradient_reaches_the_reference_and_no_optimizer_knows_it():
    module = FINETUNE(classify(bert()), sgd(proximal=MBPP(weight=1.0)))
    run = fit(module, batches(2))
    teacher = module.descent.proximal.teacher
    assert teacher is not None
    (optimizer,) = run.trainer.optimizers
    known = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in teacher.weights.items():
        assert not weight.requires_grad and weight.grad is None
        assert id(weight) not in known
        assert weight.data_ptr() != dict(module.task.named_parameters())[name].data_ptr()
    assert len(list(module.parameters())) == len(run.weights)


def test_one_descent_may_serve_two_trainings():
    """The second reference starts as the second network, too."""
    descent = sgd(proximal=MBPP(weight=1.0, beta=1.0, late_beta=1.0))
    fit(FINETUNE(classify(MeanPool()), descent), batches(3))
    network = MeanPool()
    nn.init.normal_(network.head.weight)
    second = fit(FINETUNE(classify(network), descent), batches(3))
    assert second.logs[0]["proximal/divergence"] == 0


def _regress(descent: Descent, data: list[Tensors], epochs: int = 1) -> Run:
    task = Regression(MeanPool(labels=1, width=16))
    data = [{**batch, "labels": batch["labels"].double()} for batch in data]
    return fit(FINETUNE(task, descent), data, epochs=epochs)


@with_spearman
def test_in_linear_regression_the_proximal_gradient_is_that_of_a_ridge_to_the_reference():
    proximal = MBPP(weight=3.0, beta=1.0, late_beta=1.0)
    data = batches(2)
    start = weights(Regression(MeanPool(labels=1, width=16)))
    one = _regress(sgd(proximal=proximal), data[:1])
    run = _regress(sgd(proximal=MBPP(weight=3.0, beta=1.0, late_beta=1.0)), data)

    batch = data[1]
    real = batch["attention_mask"].double().unsqueeze(-1)
    now, words, w = one.weights, "network.words.weight", "network.head.weight"
    x = (now[words][batch["input_ids"]] * real).sum(1) / real.sum(1)
    x_start = (start[words][batch["input_ids"]] * real).sum(1) / real.sum(1)
    guess = x @ now[w][0] + now["network.head.bias"]
    guess_start = x_start @ start[w][0] + start["network.head.bias"]
    residual = (guess - batch["labels"]) + 3.0 * (guess - guess_start)
    close(run.gradients[1][w][0], 2 * (residual.unsqueeze(-1) * x).mean(0))
    close(run.gradients[1]["network.head.bias"], 2 * residual.mean().unsqueeze(0))


@with_spearman
@pytest.mark.parametrize("weight", [0.0, 1.0, 19.0])
def test_the_heavier_the_penalty_the_closer_predictions_stay_to_the_reference(weight: float):
    (batch,) = batches()
    reference = answer(MeanPool(labels=1, width=16), batch).squeeze(-1).detach()
    proximal = MBPP(weight=weight, beta=1.0, late_beta=1.0)
    run = _regress(sgd(lr=0.2 / (1 + weight), proximal=proximal), [batch], epochs=150)
    found = run.module.task({**batch, "labels": batch["labels"].double()}).detach()
    expected = (batch["labels"] + weight * reference) / (1 + weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# ---- losses that are not finite ------------------------------------------------------------------


class Poisoned(Classification):
    """The loss of a text of one certain word is not a number."""

    def losses(self, logits: Tensor, batch: Any) -> Tensor:
        bad = (batch["input_ids"] == 1).any(-1)
        return torch.where(bad, torch.nan, super().losses(logits, batch))


def _with_poison(count: int, at: int) -> list[Tensors]:
    data = batches(count)
    data[at]["input_ids"][0, 1] = 1
    return data


@every_method
@pytest.mark.parametrize("flood", [None, Fixed(0.5), Individual(0.5)])
def test_a_loss_that_is_not_finite_ends_the_training_and_says_where(name: str, flood: Any):
    options = {} if flood is None else {"flood": flood}
    module = METHODS[name](Poisoned(MeanPool(), num_labels=2), sgd(**options))
    with pytest.raises(FloatingPointError, match=r"optimizer step 3 \(epoch 0, batch 3\)"):
        fit(module, _with_poison(6, at=3))


def test_with_accumulation_the_message_names_the_windows_first_batch():
    descent = sgd(accumulate_grad_batches=2)
    module = FINETUNE(Poisoned(MeanPool(), num_labels=2), descent)
    with pytest.raises(FloatingPointError, match=r"optimizer step 1 \(epoch 0, batch 2\)"):
        fit(module, _with_poison(6, at=3))


def test_between_two_looks_at_the_loss_the_first_bad_step_is_remembered():
    module = FINETUNE(Poisoned(MeanPool(), num_labels=2), sgd())
    with pytest.raises(FloatingPointError, match=r"optimizer step 2 \(epoch 0, batch 2\)"):
        fit(module, _with_poison(6, at=2), log_every_n_steps=50)


def test_without_logging_bad_losses_are_still_found():
    module = FINETUNE(Poisoned(MeanPool(), num_labels=2), sgd())
    with pytest.raises(FloatingPointError, match=r"optimizer step 2 \(epoch 0, batch 2\)"):
        fit(module, _with_poison(6, at=2), log_every_n_steps=0)


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(tmp_path: Path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    module = FINETUNE(Poisoned(MeanPool(), num_labels=2), sgd())
    with pytest.raises(FloatingPointError):
        fit(module, _with_poison(6, at=2), log_every_n_steps=50, callbacks=[Save()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.ckpt", "2.ckpt"]


def test_after_a_bad_loss_a_module_with_good_weights_may_train_again():
    module = FINETUNE(Poisoned(MeanPool(), num_labels=2), sgd())
    good = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(FloatingPointError):
        fit(module, _with_poison(6, at=3))
    module.load_state_dict(good)
    again = fit(module, batches(2))
    same(again.weights, fit(FINETUNE(classify(MeanPool()), sgd()), batches(2)).weights)


@every_method
def test_a_training_broken_off_within_a_window_leaves_nothing_to_the_next(name: str):
    class Break(L.Callback):
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            raise ArithmeticError

    module = METHODS[name](classify(MeanPool(bend=True)), sgd(accumulate_grad_batches=3))
    with pytest.raises(ArithmeticError):
        fit(module, batches(3, seed=1), callbacks=[Break()])
    module.noise.manual_seed(0)
    again = fit(module, batches(3))

    fresh = METHODS[name](classify(MeanPool(bend=True)), sgd(accumulate_grad_batches=3))
    fresh.noise.manual_seed(0)
    same(again.gradients, fit(fresh, batches(3)).gradients)


class Unending:
    """Batches without a length."""

    def __init__(self, data: list[Tensors]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensors]:
        while True:
            yield from self.data


def _fit_unending(module: Recorder, data: list[Tensors], steps: int) -> L.Trainer:
    with without_lightnings_own_warnings():
        trainer = L.Trainer(
            max_steps=steps,
            precision="64-true",
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(module, Unending(data))
    return trainer


@every_method
def test_data_may_have_no_length(name: str):
    module = METHODS[name](classify(MeanPool()), sgd(accumulate_grad_batches=2))
    assert _fit_unending(module, batches(3), steps=4).global_step == 4
    assert module.total_steps == 4


def test_in_data_without_a_length_a_bad_loss_still_says_where():
    module = FINETUNE(Poisoned(MeanPool(), num_labels=2), sgd())
    with pytest.raises(FloatingPointError, match=r"optimizer step 3 \(epoch 0, batch 3\)"):
        _fit_unending(module, _with_poison(6, at=3), steps=6)


# ---- checkpoints ---------------------------------------------------------------------------------


PROXIMALS: dict[str, Callable[[], Proximal]] = {
    "mbpp": lambda: MBPP(weight=2.0, beta=0.5, late_beta=0.9, switch=0.5),
    "vbpp": lambda: VBPP(weight=2.0, steps=4),
}

# Lightning knows neither of accumulation by hand nor that the resumed run is to save nothing.
resuming = pytest.mark.filterwarnings(
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
    "ignore:.*callbacks used to create the checkpoint need to be provided",
)


def _build(name: str, proximal: str = "mbpp", interval: Any = "step") -> Recorder:
    descent = Descent(
        optimizer=partial(adamw, lr=0.01),
        schedule=Schedule(name="linear", warmup=0.2, interval=interval),
        proximal=PROXIMALS[proximal](),
        accumulate_grad_batches=2,
    )
    return METHODS[name](classify(MeanPool(width=16, bend=True)), descent)


def _train(module: Recorder, path: Path) -> Run:
    """Three epochs of three steps, each epoch with its checkpoint."""
    save = ModelCheckpoint(path, filename="{epoch}", save_top_k=-1)
    return fit(module, batches(6), epochs=3, callbacks=[save], enable_checkpointing=True)


def _resume(module: Recorder, path: Path) -> Run:
    """The last two of the three epochs."""
    return fit(module, batches(6), epochs=3, seed=1, resume=str(path / "epoch=0.ckpt"))


@resuming
@every_method
@pytest.mark.parametrize("proximal, interval", [("mbpp", "step"), ("vbpp", "epoch")])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    name: str, proximal: str, interval: str, tmp_path: Path
):
    whole = _train(_build(name, proximal, interval), tmp_path)
    rest = _resume(_build(name, proximal, interval), tmp_path)
    assert len(rest.gradients) == 6
    same(rest.gradients, whole.gradients[3:])
    assert rest.rates == whole.rates[3:]
    same(rest.weights, whole.weights)
    teachers = [run.module.descent.proximal.teacher for run in (rest, whole)]
    assert teachers[0] is not None and teachers[1] is not None
    same(teachers[0].weights, teachers[1].weights)


@resuming
@every_method
def test_a_module_that_has_trained_resumes_as_one_that_has_not(name: str, tmp_path: Path):
    module = _build(name)
    whole = _train(module, tmp_path)
    expected = whole.weights
    again = _resume(module, tmp_path)
    same(again.gradients, whole.gradients[3:])
    same(again.weights, expected)


@every_method
def test_a_checkpoint_holds_weights_reference_and_noise_and_nothing_to_execute(
    name: str, tmp_path: Path
):
    module = _build(name)
    _train(module, tmp_path)
    checkpoint = torch.load(tmp_path / "epoch=2.ckpt", weights_only=True)
    state, teacher = checkpoint["lit_adv"], module.descent.proximal.teacher
    assert teacher is not None
    same(state["proximal"]["weights"], teacher.weights)
    same([one["noise"] for one in state["processes"]], [module.noise.get_state()])
    same(dict(checkpoint["state_dict"]), dict(module.state_dict()))


def test_a_checkpoint_of_one_method_serves_another(tmp_path: Path):
    first = _train(_build("finetune"), tmp_path)
    module = PERTURBING["freelb"](classify(MeanPool(width=16, bend=True)), sgd())
    path = str(tmp_path / "epoch=2.ckpt")
    with without_lightnings_own_warnings():
        first.trainer.validate(module, Stream(batches()), ckpt_path=path, verbose=False)
    same(weights(module.task), first.weights)
