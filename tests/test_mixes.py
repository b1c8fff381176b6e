"""Which parts make no sense together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import FINETUNE, METHODS, Floodable, MeanPool, batches, classify, fit, sgd
from torch import nn

from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.masks.child_f import ChildF
from lit_adv.methods.free_at import FreeAT
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.plain import Plain
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import Update

SINGLE = ["finetune", "noise", "gaussian"]
"""Methods that pass over a batch once, and differentiate once."""

UPDATES: dict[str, Callable[[], Update]] = {
    "plain": Plain,
    "sam": SAM,
    "asam": ASAM,
    "awp": AWP,
    "backstitch": Backstitch,
    "alternate": Alternate,
    "penalty": GradientPenalty,
    "penalty of the square": partial(GradientPenalty, of="square"),
    "exact": partial(GradientPenalty, form="exact"),
    "exact square": partial(GradientPenalty, form="exact", of="square"),
}
NOT_PLAIN = [name for name in UPDATES if name != "plain"]


def _build(name: str, descent: Descent) -> FineTuner:
    return METHODS[name](Floodable(MeanPool(width=16, bend=True, dropout=0.1)), descent)


def _free(descent: Descent) -> FineTuner:
    return FreeAT(classify(MeanPool()), descent)


@pytest.mark.parametrize("update", NOT_PLAIN)
def test_a_method_that_steps_by_itself_takes_no_update_but_the_plain_one(update: str):
    chosen = UPDATES[update]()
    line = rf"^update={type(chosen).__name__}: FreeAT steps several times .* choose update=plain$"
    with pytest.raises(ValueError, match=line):
        _free(sgd(update=chosen))
    _free(sgd(update=Plain(), mask=ChildF(0.5), gradient_clip_val=1.0))


def test_a_method_that_steps_by_itself_does_not_accumulate():
    line = r"^trainer\.accumulate_grad_batches=2: FreeAT steps several times per batch.*set 1$"
    with pytest.raises(ValueError, match=line):
        _free(sgd(accumulate_grad_batches=2))


@pytest.mark.parametrize("flood", [Fixed(0.0), Fixed(0.1), Individual(0.1)])
@pytest.mark.parametrize("name", ["finetune", "freelb"])
def test_two_turns_uphill_are_refused(flood: Fixed | Individual, name: str):
    line = rf"^flood={type(flood).__name__}: with update=alternate both would turn steps uphill"
    with pytest.raises(ValueError, match=line):
        _build(name, sgd(update=Alternate(), flood=flood))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("of", ["norm", "square"])
def test_double_backward_is_for_methods_of_a_single_pass(name: str, of: Any):
    descent = sgd(update=GradientPenalty(form="exact", of=of))
    if name in SINGLE:
        _build(name, descent)
        return
    line = r"^update\.form=exact: \w+ passes over a batch more than once.*update\.form=difference$"
    with pytest.raises(ValueError, match=line):
        _build(name, descent)


@pytest.mark.parametrize("name", SINGLE)
def test_double_backward_does_not_accumulate(name: str):
    descent = sgd(update=GradientPenalty(form="exact"), accumulate_grad_batches=2)
    line = r"^trainer\.accumulate_grad_batches=2: .*graphs of all.*update\.form=difference$"
    with pytest.raises(ValueError, match=line):
        _build(name, descent)
    _build(name, sgd(update=GradientPenalty(), accumulate_grad_batches=2))


def _half() -> dict[str, Any]:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    return {"precision": None, "plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


BY_SIZE = ["backstitch", "penalty of the square", "exact", "exact square"]


@pytest.mark.parametrize("update", UPDATES)
def test_in_float16_updates_by_the_size_of_the_gradient_are_refused_before_the_first_step(
    update: str,
):
    chosen = UPDATES[update]()
    module = FINETUNE(classify(MeanPool().float()), sgd(update=chosen))
    if update not in BY_SIZE:
        assert fit(module, batches(2), **_half()).trainer.global_step == 2
        return
    line = rf"^trainer\.precision=16-mixed: update={type(chosen).__name__} .*choose bf16-mixed$"
    with pytest.raises(ValueError, match=line):
        fit(module, batches(2), **_half())
    assert not module.seen


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true", "64-true"])
@pytest.mark.parametrize("update", BY_SIZE)
def test_in_other_precisions_they_train(update: str, precision: Any):
    network: nn.Module = MeanPool(width=16)
    network = network if precision == "64-true" else network.float()
    module = FINETUNE(classify(network), sgd(update=UPDATES[update]()))
    run = fit(module, batches(2), precision=precision)
    assert all(weight.isfinite().all() for weight in run.weights.values())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("update", ["sam", "backstitch", "alternate", "penalty"])
def test_all_other_mixes_are_built(name: str, update: str):
    options: dict[str, Any] = {} if update == "alternate" else {"flood": Individual(0.1)}
    _build(name, sgd(update=UPDATES[update](), accumulate_grad_batches=2, **options))


@pytest.mark.parametrize("update", [name for name in UPDATES if not name.startswith("exact")])
def test_every_update_trains_with_mask_clip_and_windows(update: str):
    descent = sgd(
        update=UPDATES[update](), mask=ChildF(0.5), gradient_clip_val=0.5, accumulate_grad_batches=2
    )
    run = fit(METHODS["smart"](classify(MeanPool(width=16, bend=True)), descent), batches(4))
    assert run.trainer.global_step == 2
    assert all(weight.isfinite().all() for weight in run.weights.values())
    assert all("mask/share" in log for log in run.logs[1:])
