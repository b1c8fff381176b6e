"""When methods attack and how hard; what they log; and that one which does nothing stops."""

from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    FREE,
    METHODS,
    PERTURBING,
    STILL,
    Recorder,
    Run,
    batches,
    bert,
    classify,
    close,
    fit,
    norms,
    same,
    sgd,
)
from torch import nn

from lit_adv.flood.fixed import Fixed
from lit_adv.masks.child_f import ChildF
from lit_adv.onset import Onset
from lit_adv.proximal.mbpp import MBPP
from lit_adv.updates.sam import SAM

ATTACKING = {**METHODS, "free_at": FREE}
del ATTACKING["finetune"]
every_method = pytest.mark.parametrize("name", ATTACKING)


def build(name: str, **options: Any) -> Recorder:
    return ATTACKING[name](classify(bert(dropout=0.3)), sgd(lr=0.0), **options)


def attacked(run: Run, plain: Run) -> list[bool]:
    """At which optimizer steps the gradient is not the one of plain fine-tuning."""
    return [
        any(not torch.equal(found[key], value) for key, value in expected.items())
        for found, expected in zip(run.gradients, plain.gradients, strict=True)
    ]


@every_method
@pytest.mark.parametrize(
    "options, attacks",
    [
        ({}, [True] * 5),
        ({"start_step": 2}, [False, False, True, True, True]),
        ({"every_n_steps": 2}, [True, False, True, False, True]),
        ({"start_step": 1, "every_n_steps": 3}, [False, True, False, False, True]),
    ],
)
def test_steps_without_an_attack_are_plain_fine_tuning(
    name: str, options: dict[str, int], attacks: list[bool]
):
    data = batches(5)
    run = fit(build(name, **options), data)
    plain = fit(FINETUNE(classify(bert(dropout=0.3)), sgd(lr=0.0)), data)
    if name == "free_at":
        replays = [3 if attack else 1 for attack in attacks]
        assert len(run.gradients) == sum(replays)
        starts = [sum(replays[:step]) for step in range(5)]
        run.gradients = [run.gradients[start] for start in starts]
    if name == "rdrop":  # two draws of dropout leave the stream elsewhere than one
        assert len(run.module.seen) == sum(2 if attack else 1 for attack in attacks)
    else:
        assert attacked(run, plain) == attacks
    assert run.trainer.global_step == 5


@pytest.mark.parametrize("name", [n for n in ATTACKING if n != "free_at"])  # which refuses it
def test_with_accumulation_steps_are_counted_and_not_batches(name: str):
    module = ATTACKING[name](classify(bert()), sgd(lr=0.0, accumulate_grad_batches=2), start_step=1)
    run = fit(module, batches(4))
    passes = len(run.module.seen)
    clean = [seen for seen in run.module.seen if seen.delta is None]
    assert run.module.seen[:2] == clean[:2]
    assert passes > 2


@pytest.mark.parametrize("name", ["noise", "gaussian", "r3f"])
def test_noise_grows_linearly_to_its_size(name: str):
    data = batches() * 5
    whole = fit(build(name), data).module.deltas
    grown = fit(build(name, warmup_steps=4), data).module.deltas
    for delta, full, strength in zip(grown, whole, (0.25, 0.5, 0.75, 1.0, 1.0), strict=True):
        close(delta, strength * full)


@pytest.mark.parametrize(
    "name", ["fgm", "pgd_a", "pgd_b", "freelb", "smart", "vat", "llr", "tavat"]
)
def test_radii_and_steps_grow_together(name: str):
    module = build(name, warmup_steps=2)
    passes = fit(module, batches() * 3).module.seen
    trains = [seen for seen in passes if seen.trains and seen.delta is not None]
    per_step = len(trains) // 3
    for step, strength in enumerate((0.5, 1.0, 1.0)):
        last = trains[(step + 1) * per_step - 1].moved
        close(norms(last), torch.full((4,), 0.5 * strength, dtype=torch.float64))


@pytest.mark.parametrize("name, factor", [("rdrop", 2.0), ("input_gradient_penalty", 2.0)])
def test_a_penalty_grows_by_its_weight(name: str, factor: float):
    data = batches()
    plain = fit(FINETUNE(classify(bert()), sgd(lr=0.0)), data).gradients[0]
    key = {"rdrop": "alpha", "input_gradient_penalty": "epsilon"}[name]
    half = fit(ATTACKING[name](classify(bert()), sgd(lr=0.0), warmup_steps=2), data).gradients[0]
    options = {key: factor / 2}
    same(half, fit(ATTACKING[name](classify(bert()), sgd(lr=0.0), **options), data).gradients[0])
    assert name == "rdrop" or not torch.equal(
        half["network.bert.embeddings.word_embeddings.weight"],
        plain["network.bert.embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize(
    "options, key",
    [
        ({"start_step": -1}, "method.start_step=-1"),
        ({"every_n_steps": 0}, "method.every_n_steps=0"),
        ({"warmup_steps": -1}, "method.warmup_steps=-1"),
        ({"start_step": 1.5}, "method.start_step=1.5"),
    ],
)
def test_a_timing_out_of_range_is_refused(options: dict[str, Any], key: str):
    with pytest.raises(ValueError, match=key):
        Onset(**options)
    with pytest.raises(ValueError, match=key):
        build("fgm", **options)


# ---- a method that does nothing ------------------------------------------------------------------


def dead() -> nn.Module:
    """A BERT whose answer does not depend on its words, dropout or not."""
    network = bert()
    nn.init.zeros_(network.classifier.weight)
    return network


CLIMBING = ["fgm", "fgsm", "fgm_table", "pgd_a", "pgd_b", "freelb", "freelb_pp", "yopo", "yopo_pmp"]


def watched(name: str, network: nn.Module, **options: Any) -> Recorder:
    """The method as users have it: it minds whether it has perturbed anything."""
    module = ATTACKING[name](classify(network), sgd(lr=0.0), **options)
    module._alive = False
    return module


@pytest.mark.parametrize("name", [*CLIMBING, "infobert", "tavat", "free_at", "vat"])
def test_a_method_that_perturbed_nothing_stops_at_the_end_of_its_first_epoch(name: str):
    start = {key: 0.0 for key in STILL[name] if key == "init_size"}
    module = watched(name, dead(), **start)
    with pytest.raises(ValueError, match="nothing was perturbed in the first epoch"):
        fit(module, batches(2), epochs=3)
    assert module.current_epoch == 0


@pytest.mark.parametrize("name", ["rdrop", "input_gradient_penalty"])
def test_a_penalty_of_nothing_stops_too(name: str):
    with pytest.raises(ValueError, match="nothing was perturbed"):
        fit(watched(name, dead()), batches(2))


@every_method
def test_a_method_that_perturbs_goes_on(name: str):
    network = bert(dropout=0.3)
    run = fit(watched(name, network), batches(2), epochs=2)
    assert run.trainer.current_epoch == 2


@pytest.mark.parametrize("name", PERTURBING)
def test_a_method_told_to_perturb_nothing_does_so_in_peace(name: str):
    if name in ("vat", "smart"):
        options: dict[str, Any] = {"radius": 0.0}
    else:
        options = STILL[name]
    fit(watched(name, bert(), **options), batches(2), epochs=2)


def test_the_first_epoch_is_the_first_that_attacks():
    module = watched("fgm", dead(), start_step=2)
    with pytest.raises(ValueError, match="nothing was perturbed"):
        fit(module, batches(2), epochs=3)
    assert module.current_epoch == 1


# ---- what is logged ------------------------------------------------------------------------------

WITH_CLEAN_LOSS = {"fgm", "fgsm", "fgm_table", "pgd_a", "smart", "vat", "llr", "r3f"}


@pytest.mark.parametrize("name", PERTURBING)
def test_every_perturbing_method_logs_its_losses_and_its_perturbation(name: str):
    run = fit(build(name), batches())
    log, seen = run.logs[0], run.module.seen
    trained = [each for each in seen if each.trains]
    last = next(each for each in reversed(trained) if each.delta is not None)
    if name != "yopo_pmp":  # whose last perturbation is met by the first layers only
        assert log["perturbation/norm"] == pytest.approx(float(norms(last.moved).mean()))
    assert log["loss/adversarial"] == pytest.approx(float(last.losses.mean()))
    assert ("loss/clean" in log) == (name in WITH_CLEAN_LOSS)
    if name in WITH_CLEAN_LOSS:
        assert log["loss/clean"] == pytest.approx(float(trained[0].losses.mean()))


def test_every_piece_logs_that_it_is_alive():
    pieces = {"flood": Fixed(0.5), "proximal": MBPP(weight=1.0), "mask": ChildF(share=0.5)}
    run = fit(METHODS["fgm"](classify(bert()), sgd(update=SAM(), **pieces)), batches(2))
    names = {
        "train/loss",
        "loss/clean",
        "loss/adversarial",
        "perturbation/norm",
        "flood/share",
        "proximal/divergence",
        "mask/share",
    }
    assert names <= run.logs[-1].keys()
    assert 0.4 < run.logs[-1]["mask/share"] < 0.6


def test_what_a_second_look_meets_is_not_logged():
    run = fit(METHODS["fgm"](classify(bert()), sgd(lr=0.0, update=SAM(radius=1.0))), batches())
    once = fit(METHODS["fgm"](classify(bert()), sgd(lr=0.0)), batches())
    for name in ("loss/clean", "loss/adversarial", "perturbation/norm", "train/loss"):
        assert run.logs[0][name] == once.logs[0][name]
