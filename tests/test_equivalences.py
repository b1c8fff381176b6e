"""Which settings of which methods are one and the same thing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
    FREE,
    METHODS,
    PERTURBING,
    Floodable,
    MeanPool,
    Run,
    Tensors,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    gradient,
    same,
    scaled,
    sgd,
)

from lit_adv.flood.ada import Ada
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.masks.child_d import ChildD
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.none import NoProximal
from lit_adv.proximal.proximal import Proximal
from lit_adv.proximal.vbpp import VBPP
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

every_method = pytest.mark.parametrize("name", METHODS)


def small() -> MeanPool:
    """Where a BERT would take its time."""
    return MeanPool(width=16, bend=True)


# ---- neutral settings ----------------------------------------------------------------------------

# Method, its neutral setting, and how often the plain gradient is then taken.
NEUTRAL: list[tuple[str, dict[str, Any], int]] = [
    ("fgm", {"radius": 0.0}, 2),
    ("fgm", {"weight": 0.0}, 1),
    ("pgd_a", {"steps": 0, "init_size": 0.0}, 2),
    ("pgd_a", {"step_size": 0.0, "init_size": 0.0}, 2),
    ("pgd_a", {"radius": 0.0}, 2),
    ("pgd_b", {"steps": 0, "init_size": 0.0}, 1),
    ("pgd_b", {"step_size": 0.0, "init_size": 0.0}, 1),
    ("pgd_b", {"radius": 0.0}, 1),
    ("freelb", {"steps": 1, "init_size": 0.0}, 1),
    ("freelb", {"steps": 1, "radius": 0.0}, 1),
    ("freelb", {"steps": 4, "step_size": 0.0, "init_size": 0.0}, 1),
    ("freelb", {"steps": 4, "radius": 0.0}, 1),
    ("noise", {"alpha": 0.0}, 1),
    ("gaussian", {"std": 0.0}, 1),
    ("r3f", {"weight": 0.0}, 1),
    ("r3f", {"size": 0.0}, 1),
    ("fgsm", {"radius": 0.0}, 2),
    ("fgsm", {"radius": 0.0, "clean": 0.0}, 1),
    ("fgsm", {"adversarial": 0.0}, 1),
    ("fgsm", {"radius": 0.0, "clean": 0.5, "adversarial": 0.5}, 1),
    ("fgm_table", {"radius": 0.0}, 2),
    ("freelb_pp", {"steps": 4, "step_size": 0.0, "init_size": 0.0}, 1),
    ("yopo", {"rounds": 1, "radius": 0.0}, 1),
    ("yopo", {"rounds": 4, "step_size": 0.0, "init_size": 0.0}, 1),
    ("yopo_pmp", {"rounds": 1, "radius": 0.0}, 1),
    ("yopo_pmp", {"rounds": 4, "step_size": 0.0, "init_size": 0.0}, 1),
    ("tavat", {"steps": 4, "step_size": 0.0, "init_size": 0.0}, 1),
    ("tavat", {"steps": 4, "radius": 0.0}, 1),
    ("vat", {"weight": 0.0}, 1),
    ("vat", {"radius": 0.0}, 1),
    ("llr", {"weight": 0.0, "slope_weight": 0.0}, 1),
    ("llr", {"radius": 0.0}, 1),
    ("input_gradient_penalty", {"epsilon": 0.0}, 1),
    ("infobert", {"steps": 4, "alpha": 0.0, "beta": 0.0, "radius": 0.0}, 1),
    ("smart", {"weight": 0.0}, 1),
    ("smart", {"noise_std": 0.0}, 1),
    ("smart", {"radius": 0.0}, 1),
]


BUT_FOR_ROUNDING = {
    ("llr", "weight", "slope_weight"),  # double backward takes another kernel of attention
    ("llr", "radius"),
    ("input_gradient_penalty", "epsilon"),
    ("vat", "radius"),  # the gradient of KL(p || p) is p - p * (sum of p)
}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name, neutral, times", NEUTRAL)
def test_a_neutral_method_is_plain_fine_tuning(
    name: str, neutral: dict[str, Any], times: int, dropout: float
):
    plain = gradient(FINETUNE, bert(dropout), batches())
    neutralised = gradient(METHODS[name], bert(dropout), batches(), **neutral)
    equal = close if (name, *neutral) in BUT_FOR_ROUNDING else same
    equal({key: neutralised[key] for key in plain}, scaled(plain, times))


def test_without_dropout_r_drop_is_plain_fine_tuning():
    same(gradient(METHODS["rdrop"], bert(), batches()), gradient(FINETUNE, bert(), batches()))


def test_one_replay_from_a_start_at_zero_is_plain_fine_tuning():
    options = {"replays": 1, "init_size": 0.0}
    free = fit(FREE(classify(bert(0.3)), sgd(), **options), batches(3))
    plain = fit(FINETUNE(classify(bert(0.3)), sgd()), batches(3))
    same(free.weights, plain.weights)


def without_levels() -> Ada:
    """Auxiliary losses whose correction takes them to zero."""
    flood = Ada(gamma=1.0)
    flood.adopt(torch.ones(12))
    return flood


NEUTRAL_PIECES: dict[str, Callable[[], dict[str, Any]]] = {
    "flooding to level 0": lambda: {"flood": Fixed(0.0)},
    "flooding each example to level 0": lambda: {"flood": Individual(0.0)},
    "a mean teacher of no weight": lambda: {"proximal": MBPP(weight=0.0)},
    "a reference of no weight": lambda: {"proximal": VBPP(weight=0.0)},
    "a teacher without memory": lambda: {"proximal": MBPP(weight=3.0, beta=0.0, late_beta=0.0)},
    "clipping of nothing": lambda: {"gradient_clip_val": 1e6},
    "levels of zero": lambda: {"flood": without_levels()},
    "sharpness within no radius": lambda: {"update": SAM(radius=0.0)},
    "adaptive sharpness within no radius": lambda: {"update": ASAM(radius=0.0)},
    "adversarial weights within no radius": lambda: {"update": AWP(radius=0.0)},
    "a step back of no length": lambda: {"update": Backstitch(scale=0.0)},
    "a gradient penalty of no weight": lambda: {"update": GradientPenalty(weight=0.0)},
    "a mask that keeps all": lambda: {"mask": ChildF(share=1.0)},
    "a fixed mask that keeps all": lambda: {"mask": ChildD(share=1.0, only="")},
}


@every_method
@pytest.mark.parametrize("piece", NEUTRAL_PIECES)
def test_a_neutral_piece_changes_nothing(name: str, piece: str):
    data = [{**b, "index": 4 * i + torch.arange(4)} for i, b in enumerate(batches(3))]
    plain = fit(METHODS[name](classify(small()), sgd()), data)
    with_piece = fit(METHODS[name](classify(small()), sgd(**NEUTRAL_PIECES[piece]())), data)
    # A flood of the batch takes the gradients of InfoBERT's losses and penalties apart.
    apart = name == "infobert" and piece == "flooding to level 0"
    equal = close if apart else same
    equal(with_piece.gradients, plain.gradients)
    equal(with_piece.weights, plain.weights)


@every_method
@pytest.mark.parametrize("proximal", [MBPP, VBPP])
def test_at_the_start_the_reference_holds_nothing(name: str, proximal: type[MBPP | VBPP]):
    held = fit(METHODS[name](classify(small()), sgd(proximal=proximal(weight=3.0))), batches(2))
    free = fit(METHODS[name](classify(small()), sgd()), batches(2))
    same(held.gradients[0], free.gradients[0])
    assert not torch.equal(
        held.gradients[1]["network.head.weight"], free.gradients[1]["network.head.weight"]
    )


# ---- one method by another -----------------------------------------------------------------------


def test_fgm_is_one_step_of_pgd_as_long_as_the_radius():
    fgm = gradient(PERTURBING["fgm"], bert(), batches(), radius=0.4)
    options = {"steps": 1, "step_size": 0.4, "init_size": 0.0}
    same(gradient(PERTURBING["pgd_a"], bert(), batches(), radius=torch.inf, **options), fgm)
    close(gradient(PERTURBING["pgd_a"], bert(), batches(), radius=0.4, **options), fgm)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_fgm_is_the_clean_gradient_plus_weighted_pgd_of_form_b(weight: float):
    plain = gradient(FINETUNE, bert(), batches())
    options = {"steps": 1, "step_size": 0.4, "radius": 0.4, "init_size": 0.0}
    ahead = gradient(PERTURBING["pgd_b"], bert(), batches(), **options)
    expected = {name: plain[name] + weight * ahead[name] for name in plain}
    close(gradient(PERTURBING["fgm"], bert(), batches(), radius=0.4, weight=weight), expected)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_pgd_of_form_a_is_the_clean_gradient_plus_form_b(steps: int):
    plain = gradient(FINETUNE, bert(), batches())
    form_a, form_b = (
        gradient(PERTURBING[name], bert(), batches(), steps=steps, init_size=0.0)
        for name in ("pgd_a", "pgd_b")
    )
    close(form_a, {name: plain[name] + form_b[name] for name in plain})


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_freelb_is_the_mean_of_pgds_of_fewer_steps(steps: int, norm: str):
    options = {"step_size": 0.2, "radius": 0.5, "init_size": 0.3, "norm": norm}
    pgds = [
        gradient(PERTURBING["pgd_b"], bert(), batches(), steps=fewer, **options)
        for fewer in range(steps)
    ]
    mean = {name: torch.stack([grads[name] for grads in pgds]).mean(0) for name in pgds[0]}
    close(gradient(PERTURBING["freelb"], bert(), batches(), steps=steps, **options), mean)


def test_fgsm_is_one_sign_step_of_pgd():
    fgsm = gradient(PERTURBING["fgsm"], bert(), batches(), radius=0.1, clean=0.0)
    options = {"steps": 1, "step_size": 0.1, "radius": 0.1, "init_size": 0.0, "norm": "linf"}
    same(gradient(PERTURBING["pgd_b"], bert(), batches(), **options), fgsm)
    both = gradient(PERTURBING["fgsm"], bert(), batches(), radius=0.1)
    same(gradient(PERTURBING["pgd_a"], bert(), batches(), **options), both)


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_yopo_with_one_inner_step_follows_pgds_path(rounds: int, norm: str):
    options = {"step_size": 0.2, "radius": 0.5, "init_size": 0.3, "norm": norm}
    yopo = {"rounds": rounds, "inner_steps": 1, **options}
    run = fit(PERTURBING["yopo"](classify(bert()), sgd(lr=0.0), **yopo), batches())
    pgd = fit(
        PERTURBING["pgd_b"](classify(bert()), sgd(lr=0.0), steps=rounds, **options), batches()
    )
    close(run.module.deltas, pgd.module.deltas)
    ahead = [
        gradient(PERTURBING["pgd_b"], bert(), batches(), steps=steps, **options)
        for steps in range(1, rounds + 1)
    ]
    mean = {name: torch.stack([grads[name] for grads in ahead]).mean(0) for name in ahead[0]}
    close(run.gradients[0], mean)


def test_an_unlimited_freelb_is_one_whose_radius_is_never_reached():
    far = gradient(PERTURBING["freelb_pp"], bert(), batches())
    same(gradient(PERTURBING["freelb_pp"], bert(), batches(), radius=0.4 + 4 * 0.3), far)


def test_tavat_whose_words_keep_nothing_and_do_not_move_is_freelb():
    options = {"steps": 3, "step_size": 0.3, "radius": 0.5}
    network = bert()
    module = PERTURBING["tavat"](classify(network), sgd(lr=0.0), init_size=0.0, **options)
    (batch,) = batches()
    one_token = {key: value if key == "labels" else value[:, :1] for key, value in batch.items()}
    # With a start at zero and one token both perturbations take the same step.
    halves = fit(module, [one_token]).module.deltas
    freelb = {"steps": 3, "step_size": 0.6, "radius": 0.5, "init_size": 0.0}
    whole = fit(PERTURBING["freelb"](classify(bert()), sgd(lr=0.0), **freelb), [one_token])
    close(halves, whole.module.deltas)


def test_infobert_without_information_is_freelb():
    options = {"steps": 3, "step_size": 0.3, "radius": 0.5, "init_size": 0.4}
    plain = gradient(PERTURBING["freelb"], bert(), batches(), **options)
    found = gradient(PERTURBING["infobert"], bert(), batches(), alpha=0.0, beta=0.0, **options)
    close({name: found[name] for name in plain}, plain)


def test_a_gradient_penalty_as_heavy_as_its_difference_is_long_is_sam():
    data = batches(3)
    penalty, sam = (
        fit(METHODS["fgm"](classify(bert(0.3)), sgd(update=update)), data)
        for update in (GradientPenalty(weight=0.2, radius=0.2), SAM(radius=0.2))
    )
    same(penalty.gradients, sam.gradients)
    same(penalty.weights, sam.weights)


@pytest.mark.parametrize("name", ["finetune", "fgm", "vat"])
def test_levels_all_alike_are_individual_flooding(name: str):
    ada = Ada(gamma=0.0)
    ada.adopt(torch.full((12,), 0.625))  # exact in float32, as levels are
    data = [{**b, "index": 4 * i + torch.arange(4)} for i, b in enumerate(batches(3))]
    of_each, of_all = (
        fit(METHODS[name](Floodable(bert()), sgd(flood=flood)), data)
        for flood in (ada, Individual(0.625))
    )
    same(of_each.gradients, of_all.gradients)
    same(of_each.weights, of_all.weights)


@pytest.mark.parametrize("name", ["finetune", "pgd_b", "smart"])
def test_with_one_example_and_one_pass_both_floods_are_the_same(name: str):
    data = cut(batches(size=6)[0], *[1] * 6)
    of_batch, of_example = (
        fit(METHODS[name](classify(bert()), sgd(flood=flood)), data)
        for flood in (Fixed(0.6), Individual(0.6))
    )
    same(of_batch.gradients, of_example.gradients)
    same(of_batch.weights, of_example.weights)
    shares = [log["flood/share"] for log in of_batch.logs]
    assert min(shares) == 0 and max(shares) == 1


# ---- accumulation --------------------------------------------------------------------------------

FLOODS: dict[str, Callable[[], Flood]] = {
    "none": NoFlood,
    "batch": lambda: Fixed(1.0),
    "example": lambda: Individual(1.0),
}
PROXIMALS: dict[str, Callable[[], Proximal]] = {
    "none": NoProximal,
    "mbpp": lambda: MBPP(weight=2.0, beta=0.5, late_beta=0.9, switch=0.5),
    "vbpp": lambda: VBPP(weight=2.0, steps=2),
}


def data_on_both_sides_of_the_flood() -> list[Tensors]:
    """Labels as the network would guess them at first; half of them not in every second batch."""
    network, data = small(), batches(4)
    for i, batch in enumerate(data):
        guess = network(batch["input_ids"], batch["attention_mask"]).logits.argmax(-1)
        wrong = torch.tensor([i % 2, 0, i % 2, 0])
        batch["labels"] = (guess + wrong) % 2
    return data


# A norm or a bound over the whole batch, a table that one part writes and the next one reads.
JOINT = {"fgm_table", "infobert", "tavat"}
every_separable_method = pytest.mark.parametrize("name", [n for n in METHODS if n not in JOINT])


@every_separable_method
@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("proximal", PROXIMALS)
def test_a_batch_may_be_cut_into_micro_batches(name: str, flood: str, proximal: str):
    """Of different sizes, too; the stream of the noise goes on from part to part."""
    data = data_on_both_sides_of_the_flood()

    def train(parts: int, data: list[Tensors]) -> Run:
        pieces = {"flood": FLOODS[flood](), "proximal": PROXIMALS[proximal]()}
        descent = sgd(lr=0.05, accumulate_grad_batches=parts, **pieces)
        return fit(METHODS[name](Floodable(small()), descent), data)

    whole = train(1, data)
    parts = train(3, [part for batch in data for part in cut(batch, 1, 2, 1)])
    assert whole.trainer.global_step == parts.trainer.global_step == 4
    close(parts.gradients, whole.gradients)
    close(parts.weights, whole.weights)

    logs = parts.logs[2::3]
    assert [log["train/loss"] for log in logs] == pytest.approx(
        [log["train/loss"] for log in whole.logs]
    )
    if flood != "none":
        shares = [log["flood/share"] for log in logs]
        assert shares == pytest.approx([log["flood/share"] for log in whole.logs])
        assert min(shares) < 1 and max(shares) > 0


@every_separable_method
@pytest.mark.parametrize("sizes", [(2, 2), (1, 1, 1, 1), (3, 1), (1, 3)])
def test_it_does_not_matter_how_a_batch_is_cut(name: str, sizes: tuple[int, ...]):
    data = data_on_both_sides_of_the_flood()[1:2]
    pieces = {"flood": Individual(1.0), "accumulate_grad_batches": len(sizes)}
    whole = fit(METHODS[name](Floodable(small()), sgd(flood=Individual(1.0))), data)
    parts = fit(METHODS[name](Floodable(small()), sgd(**pieces)), cut(data[0], *sizes))
    close(parts.gradients, whole.gradients)
