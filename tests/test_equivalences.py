"""Which settings of which methods are one and the same thing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from testbed import (
    FINETUNE,
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

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.none import NoProximal
from lit_adv.proximal.proximal import Proximal
from lit_adv.proximal.vbpp import VBPP

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
    ("smart", {"weight": 0.0}, 1),
    ("smart", {"noise_std": 0.0}, 1),
    ("smart", {"radius": 0.0}, 1),
]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name, neutral, times", NEUTRAL)
def test_a_neutral_method_is_plain_fine_tuning(
    name: str, neutral: dict[str, Any], times: int, dropout: float
):
    plain = gradient(FINETUNE, bert(dropout), batches())
    same(gradient(PERTURBING[name], bert(dropout), batches(), **neutral), scaled(plain, times))


NEUTRAL_PIECES: dict[str, Callable[[], dict[str, Any]]] = {
    "flooding to level 0": lambda: {"flood": Fixed(0.0)},
    "flooding each example to level 0": lambda: {"flood": Individual(0.0)},
    "a mean teacher of no weight": lambda: {"proximal": MBPP(weight=0.0)},
    "a reference of no weight": lambda: {"proximal": VBPP(weight=0.0)},
    "a teacher without memory": lambda: {"proximal": MBPP(weight=3.0, beta=0.0, late_beta=0.0)},
    "clipping of nothing": lambda: {"gradient_clip_val": 1e6},
}


@every_method
@pytest.mark.parametrize("piece", NEUTRAL_PIECES)
def test_a_neutral_piece_changes_nothing(name: str, piece: str):
    data = batches(3)
    plain = fit(METHODS[name](classify(small()), sgd()), data)
    with_piece = fit(METHODS[name](classify(small()), sgd(**NEUTRAL_PIECES[piece]())), data)
    same(with_piece.gradients, plain.gradients)
    same(with_piece.weights, plain.weights)


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


@every_method
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


@every_method
@pytest.mark.parametrize("sizes", [(2, 2), (1, 1, 1, 1), (3, 1), (1, 3)])
def test_it_does_not_matter_how_a_batch_is_cut(name: str, sizes: tuple[int, ...]):
    data = data_on_both_sides_of_the_flood()[1:2]
    pieces = {"flood": Individual(1.0), "accumulate_grad_batches": len(sizes)}
    whole = fit(METHODS[name](Floodable(small()), sgd(flood=Individual(1.0))), data)
    parts = fit(METHODS[name](Floodable(small()), sgd(**pieces)), cut(data[0], *sizes))
    close(parts.gradients, whole.gradients)
