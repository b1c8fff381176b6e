"""Compiled layers answer as others do: perturbations arrive, and nothing is compiled anew for them.

What is traced is the same for all backends: methods by methods, that of autograd stands for the
real one, which a few train under.
"""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from testbed import (
    FREE,
    METHODS,
    STILL,
    Floodable,
    MeanPool,
    Method,
    Run,
    batches,
    bert,
    classify,
    close,
    fit,
    same,
    sgd,
)
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from lit_adv import inject, mixes, regions
from lit_adv.callbacks.exponential_moving_average import ExponentialMovingAverage
from lit_adv.flood.fixed import Fixed
from lit_adv.methods.finetune import FineTune
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.vbpp import VBPP
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # torch.compile's own
    pytest.mark.filterwarnings("ignore:`torch.jit"),
]

EVERY: dict[str, Method] = {**METHODS, "free_at": FREE}
TWICE = ["llr", "input_gradient_penalty"]
ONCE = [name for name in EVERY if name not in TWICE]


def network(compile: bool, dropout: float = 0.0, backend: Any = "aot_eager", **options: Any) -> Any:
    made = bert(dropout, layers=2)
    regions.prepare(made, compile=compile, backend=backend, **options)
    return made


def uneven(count: int) -> list[dict[str, Tensor]]:
    """Batches of different sizes and lengths."""
    return [batches(size=3 + i % 3, tokens=6 + i % 4, seed=i)[0] for i in range(count)]


def agree(train: Callable[[Any], Run]) -> None:
    """Training a compiled network and one that is not is the same, dropout masks included."""
    plain, compiled = (train(network(each, 0.2)) for each in (False, True))
    assert regions.compiled(compiled.module.task.network)
    close(compiled.gradients, plain.gradients)
    close(compiled.weights, plain.weights)
    close(compiled.module.deltas, plain.module.deltas)
    for one, other in zip(compiled.module.seen, plain.module.seen, strict=True):
        close(one.logits, other.logits)
    for one, other in zip(compiled.logs, plain.logs, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)


# ---- the same as without -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONCE)
def test_every_method_trains_and_validates_the_same(name: str):
    data = uneven(3)
    agree(lambda net: fit(EVERY[name](classify(net), sgd()), data, validation=data))


@pytest.mark.parametrize(
    "descent",
    [
        partial(sgd, update=SAM()),
        partial(sgd, update=AWP()),
        partial(sgd, update=Backstitch()),
        partial(sgd, update=GradientPenalty(), gradient_clip_val=0.1),
        partial(sgd, proximal=MBPP(1.0, 0.9)),
        partial(sgd, proximal=VBPP(1.0), flood=Fixed(0.5), accumulate_grad_batches=2),
    ],
)
@pytest.mark.parametrize("name", ["smart", "infobert"])
def test_so_does_every_descent(descent: Callable[[], Any], name: str):
    agree(lambda net: fit(EVERY[name](Floodable(net), descent()), uneven(4)))


def test_so_do_averages_of_weights():
    def train(net: Any) -> Run:
        average = ExponentialMovingAverage(decay=0.5)
        module = EVERY["fgm"](classify(net), sgd())
        return fit(module, uneven(3), callbacks=[average], validation=uneven(2))

    agree(train)


@pytest.mark.parametrize("name", ["pgd_b", "yopo", "infobert"])
def test_so_do_layers_that_are_recomputed(name: str):
    def train(net: Any) -> Run:
        regions.prepare(
            net, compile=regions.compiled(net), gradient_checkpointing=True, backend="aot_eager"
        )
        return fit(EVERY[name](classify(net), sgd()), uneven(2))

    agree(train)


@pytest.mark.parametrize("split", ["bert.embeddings", "bert.encoder.layer.1", "bert.encoder"])
@pytest.mark.parametrize("form", ["gd", "pmp"])
def test_so_does_every_split_outside_of_the_layers(split: str, form: str):
    build = partial(EVERY["yopo"], split=split, form=form)
    agree(lambda net: fit(build(classify(net), sgd()), uneven(2)))


def test_the_real_backend_trains_the_same_in_float32():
    """By one test, so that what it compiles is compiled once."""
    data = uneven(4)
    for name in ("finetune", "pgd_b", "freelb", "smart", "vat", "yopo", "yopo_pmp", "infobert"):

        def train(compile: bool, name: str = name) -> Run:
            net = network(compile, backend="inductor").float()
            return fit(EVERY[name](classify(net), sgd()), data, precision="32-true")

        plain, compiled = train(False), train(True)
        near = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
        near(compiled.gradients, plain.gradients)
        near(compiled.weights, plain.weights)
        near(compiled.module.deltas, plain.module.deltas)
        for one, other in zip(compiled.module.seen, plain.module.seen, strict=True):
            near(one.losses, other.losses)


class Stack(nn.Module):
    """Two layers with dropout, whose compilation takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.3)) for _ in range(2)]
        self.layers = nn.ModuleList(kinds)

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def test_the_real_backend_draws_the_same_dropout_masks_in_all_passes_of_a_batch():
    """Whether weights train in them or stand still."""
    net = MeanPool()
    net.bend = Stack().double()  # pyright: ignore[reportAttributeAccessIssue]
    regions.prepare(net, compile=True)
    for name in ("smart", "pgd_b", "yopo"):
        still = {**STILL[name], "split": "bend.layers.0"} if name == "yopo" else STILL[name]
        seen = fit(EVERY[name](classify(net), sgd(lr=0.0), **still), batches(2)).module.seen
        first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
        assert {each.trains for each in first} == {True, False}
        for passes in (first, second):
            for each in passes:
                close(each.logits, passes[0].logits)
        assert not torch.allclose(first[0].logits, second[0].logits)

    one, other = fit(EVERY["rdrop"](classify(net), sgd()), batches()).module.seen
    assert not torch.allclose(one.logits, other.logits)


# ---- the perturbation arrives, and nothing is compiled for it ------------------------------------


def logits(net: Any, batch: dict[str, Tensor], delta: Tensor | None) -> Tensor:
    with inject.perturbed(net.get_input_embeddings(), delta):
        return classify(net)(batch)


def test_every_perturbation_arrives_whatever_was_traced_first():
    plain, compiled = network(False), network(True)
    stream = torch.Generator().manual_seed(0)
    for size in (0.0, 0.5, 1.0, None, 2.0):
        (batch,) = batches(seed=1)
        delta = torch.randn(4, 7, 16, generator=stream, dtype=torch.float64)
        delta = None if size is None else (size * delta).requires_grad_()
        found = [logits(net, batch, delta) for net in (plain, compiled)]
        close(found[1], found[0])
        assert torch.allclose(found[1], logits(compiled, batch, None)) is (not size)
        if delta is not None:
            grads = [torch.autograd.grad(each.square().sum(), delta)[0] for each in found]
            close(grads[1], grads[0])
            assert (grads[1].norm(dim=-1)[batch["attention_mask"].bool()] > 0).all()


class Counting:
    """A backend that runs what was traced as it is, and counts."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.calls += 1
            return graph(*args)

        return run


def test_the_number_of_graphs_grows_neither_with_methods_nor_steps_and_no_layer_is_left_out():
    backend, breaks = Counting(), torch._dynamo.utils.counters["graph_break"].copy()
    for name in ("finetune", "pgd_b", "smart", "yopo", "infobert", "free_at"):
        net = network(True, 0.1, backend=backend)
        module = EVERY[name](classify(net), sgd(proximal=VBPP(1.0)))
        data = uneven(6)
        fit(module, data, validation=data)
        # Training, standing still, evaluation, the reference; each with and without padding.
        graphs = backend.graphs
        assert graphs <= 8

        passes, calls = len(module.seen), backend.calls
        fit(module, uneven(24))
        assert backend.graphs == graphs
        passes, calls = len(module.seen) - passes, backend.calls - calls
        references = 24 * (3 if name == "free_at" else 1)
        # YOPO's two short passes a batch, which are not noted, run one of the two layers.
        short = 2 * 24 if name == "yopo" else 0
        assert calls == 2 * (passes + references) + short
    assert torch._dynamo.utils.counters["graph_break"] == breaks
    assert torch._dynamo.config.cache_size_limit >= regions.VARIANTS  # enough for every method


# ---- copies, files, modes ------------------------------------------------------------------------


def test_names_weights_and_exports_are_those_of_any_network(tmp_path: Path):
    plain, compiled = network(False), network(True)
    run = fit(EVERY["pgd_b"](classify(compiled), sgd()), uneven(2))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(compiled.state_dict())
    compiled.eval().save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float64)
    (batch,) = batches()
    expected = classify(compiled).eval()(batch)
    for net in (plain, loaded):
        assert isinstance(net, nn.Module)
        close(classify(net).eval()(batch), expected)
    assert not any("_orig_mod" in name for name in run.module.state_dict())


def test_a_checkpoint_is_one_of_any_network_and_the_other_way_round(tmp_path: Path):
    def whole(compile: bool) -> Run:
        return fit(EVERY["fgm"](classify(network(compile)), sgd()), uneven(3), epochs=2)

    for first, then in ((True, False), (False, True)):
        run = fit(EVERY["fgm"](classify(network(first)), sgd()), uneven(3))
        run.trainer.save_checkpoint(tmp_path / "half.ckpt")
        module = EVERY["fgm"](classify(network(then)), sgd())
        resumed = fit(module, uneven(3), epochs=2, resume=str(tmp_path / "half.ckpt"))
        close(resumed.weights, whole(then).weights)


def test_a_copy_is_compiled_and_another_network_and_a_pickled_one_is_not_compiled():
    net, (batch,) = network(True), batches()
    twin, thawed = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    assert regions.compiled(twin) and not regions.compiled(thawed)
    expected = classify(net)(batch)
    for other in (twin, thawed):
        close(classify(other)(batch), expected)
        with torch.no_grad():
            other.bert.encoder.layer[0].output.dense.weight.zero_()
        assert not torch.allclose(classify(other)(batch), expected)
    same(classify(net)(batch), expected)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWICE)
def test_methods_that_differentiate_twice_are_refused(name: str):
    line = (
        r"^model\.compile=true: \w+ differentiates twice, which torch\.compile cannot "
        r"\(aot_autograd does not support double backward\); set model\.compile=false$"
    )
    with pytest.raises(ValueError, match=line):
        EVERY[name](classify(network(True)), sgd())
    EVERY[name](classify(network(False)), sgd())


def test_so_is_the_exact_gradient_penalty():
    line = (
        r"^model\.compile=true: update\.form=exact differentiates .*, or update\.form=difference$"
    )
    with pytest.raises(ValueError, match=line):
        FineTune(classify(network(True)), sgd(update=GradientPenalty(form="exact")))
    FineTune(classify(network(True)), sgd(update=GradientPenalty(form="difference")))


def test_the_methods_that_say_so_are_those_that_do():
    """Any other method fails the matrix above if it differentiates twice."""
    said = {
        name for name, build in EVERY.items() if build(classify(bert()), sgd()).differentiates_twice
    }
    assert said == set(TWICE)


INSIDE = "bert.encoder.layer.0.attention.self.query"


def test_places_inside_a_compiled_layer_are_refused():
    line = (
        rf"={INSIDE}: lies inside bert\.encoder\.layer\.0, which is compiled as one piece; name "
        r"that layer itself, or a module outside of all layers, or set model\.compile=false$"
    )
    with pytest.raises(ValueError, match=rf"^model\.at{line}"):
        classify(network(True), at=INSIDE)
    with pytest.raises(ValueError, match=rf"^method\.split{line}"):
        EVERY["yopo"](classify(network(True)), sgd(), split=INSIDE)
    assert classify(network(False), at=INSIDE).width == 16


@pytest.mark.parametrize("at", [None, "bert.embeddings.word_embeddings"])
def test_networks_compiled_as_a_whole_are_refused(at: str | None):
    inside, wrapped = bert(), torch.compile(bert(), backend="aot_eager")
    inside.compile(backend="aot_eager")
    line = (
        r"^model\.at=.*: lies within what torch\.compile made of the network, which sees no hooks"
    )
    with pytest.raises(ValueError, match=line):
        classify(inside, at=at)
    at = None if at is None else f"_orig_mod.{at}"
    with pytest.raises(ValueError, match=line):
        classify(wrapped, at=at)  # pyright: ignore[reportArgumentType]


def test_a_compiled_module_is_refused_before_its_first_step():
    module = EVERY["pgd_b"](classify(bert()), sgd())
    line = r"^torch\.compile\(PGD\): .* model\.compile=true, or in code lit_adv\.regions\.prepare\("
    with pytest.raises(ValueError, match=line):
        fit(torch.compile(module, backend="aot_eager"), batches())  # pyright: ignore
    assert not module.seen


def test_a_network_without_layers_is_refused():
    line = r"^model\.compile=true: MeanPool has no stack of layers; set it to false$"
    with pytest.raises(ValueError, match=line):
        regions.prepare(MeanPool(), compile=True)
    assert not regions.compiled(MeanPool())
    mixes.check_compiled(FineTune, sgd(), MeanPool())
