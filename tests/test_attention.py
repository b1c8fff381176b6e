"""Double backward runs attention by plain products, and nothing else does."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from testbed import FREE, METHODS, Recorder, batches, bert, classify, fit, same, sgd
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from lit_adv import attention, regions
from lit_adv.proximal.vbpp import VBPP
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

EVERY: dict[str, Callable[..., Recorder]] = {**METHODS, "free_at": FREE}
TWICE = ["llr", "input_gradient_penalty"]
ONCE = [name for name in EVERY if name not in TWICE]
EXACT = partial(GradientPenalty, form="exact")
PRODUCTS = "products"


class Seen(TorchDispatchMode):
    """Counts by which kernels attention runs inside the block, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        if name == "_safe_softmax":  # of the plain products; losses take log_softmax
            self.counts[PRODUCTS] += 1
        elif name.startswith("_scaled_dot_product"):
            self.counts["backward" if name.endswith("_backward") else "fused"] += 1
        return func(*args, **(kwargs or {}))


def seen(module: Recorder, count: int = 1, **options: Any) -> Counter[str]:
    with Seen() as mode:
        fit(module, batches(count), **options)
    return mode.counts


@pytest.mark.parametrize("name", ONCE)
def test_methods_that_differentiate_once_run_fused_kernels_only(name: str):
    module = EVERY[name](classify(bert()), sgd())
    counts = seen(module)
    assert counts[PRODUCTS] == 0
    assert counts["fused"] >= module.cost.forward
    assert counts["backward"] >= module.cost.to_inputs


@pytest.mark.parametrize("name", TWICE)
def test_methods_that_differentiate_twice_run_plain_products_only(name: str):
    module = METHODS[name](classify(bert()), sgd())
    assert seen(module) == {PRODUCTS: module.cost.forward}


@pytest.mark.parametrize("name", ["finetune", "noise", "gaussian"])
def test_the_exact_penalty_runs_plain_products_and_the_difference_does_not(name: str):
    build = partial(METHODS[name], classify(bert()))
    assert seen(build(sgd(update=EXACT()))) == {PRODUCTS: 1}
    assert seen(build(sgd(update=GradientPenalty()))) == {"fused": 2, "backward": 2}


@pytest.mark.parametrize("name", TWICE)
def test_a_second_look_is_differentiated_twice_as_well(name: str):
    module = METHODS[name](classify(bert()), sgd(update=SAM()))
    assert seen(module) == {PRODUCTS: 2 * module.cost.forward}


# ---- nothing else --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWICE)
def test_steps_that_do_not_attack_run_fused_kernels(name: str):
    module = METHODS[name](classify(bert()), sgd(), start_step=2)
    assert seen(module, 2) == {"fused": 2, "backward": 2}
    module = METHODS[name](classify(bert()), sgd(), every_n_steps=2)
    assert seen(module, 2) == {PRODUCTS: module.cost.forward, "fused": 1, "backward": 1}


@pytest.mark.parametrize("name", [*TWICE, "exact"])
def test_validation_and_reference_weights_run_fused_kernels(name: str):
    update = EXACT() if name == "exact" else None
    options: dict[str, Any] = {} if update is None else {"update": update}
    build = METHODS["finetune" if name == "exact" else name]
    module = build(classify(bert()), sgd(**options))
    products = {PRODUCTS: module.cost.forward}
    assert seen(module, validation=batches(3)) == {**products, "fused": 3}
    module = build(classify(bert()), sgd(proximal=VBPP(weight=1.0), **options))
    assert seen(module) == {**products, "fused": 1}


def test_the_choice_of_kernels_is_put_back_also_after_an_error():
    before = attention._state()
    with pytest.raises(KeyError), attention.twice_differentiable():
        assert attention._state() != before
        raise KeyError
    assert attention._state() == before


# ---- recomputed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TWICE, "exact"])
def test_what_is_recomputed_runs_by_the_kernels_it_ran_by_at_first(name: str):
    network = bert()
    regions.prepare(network, gradient_checkpointing=True)
    build = METHODS["finetune" if name == "exact" else name]
    module = build(classify(network), sgd(update=EXACT()) if name == "exact" else sgd())
    counts = seen(module)
    assert set(counts) == {PRODUCTS}
    assert counts[PRODUCTS] > module.cost.forward


def test_a_choice_of_kernels_can_be_taken_up_again_and_within_another():
    before = attention._state()
    with attention.twice_differentiable():
        products = attention._state()
        _, recomputed = attention.as_now()
    for _ in range(2):
        with recomputed:
            assert attention._state() == products
            with attention.as_now()[1]:
                assert attention._state() == products
            assert attention._state() == products
        assert attention._state() == before


def test_plain_products_answer_as_fused_kernels_do_and_have_a_second_derivative():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64).unbind()
    fused = scaled_dot_product_attention(query, key, value)
    with attention.twice_differentiable():
        plain = scaled_dot_product_attention(query, key, value)
        inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
        assert torch.autograd.gradgradcheck(scaled_dot_product_attention, inputs)
    same(plain, fused, rtol=1e-12, atol=1e-12)
