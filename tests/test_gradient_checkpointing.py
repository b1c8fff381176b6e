"""Recomputed activations change neither gradients nor random streams, and cost less memory."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import (
    FREE,
    METHODS,
    Floodable,
    MeanPool,
    Recorder,
    batches,
    bert,
    classify,
    close,
    fit,
    same,
    sgd,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from lit_adv import inject, layers, regions, standstill
from lit_adv.flood.fixed import Fixed
from lit_adv.proximal.vbpp import VBPP
from lit_adv.tasks.classification import Classification
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

EVERY: dict[str, Callable[..., Recorder]] = {**METHODS, "free_at": FREE}
UPDATES = {
    "sam": SAM,
    "asam": ASAM,
    "awp": AWP,
    "backstitch": Backstitch,
    "alternate": Alternate,
    "penalty": GradientPenalty,
    "exact": partial(GradientPenalty, form="exact"),
    "exact square": partial(GradientPenalty, form="exact", of="square"),
}


def network(recomputed: bool, dropout: float = 0.0, count: int = 2) -> Any:
    made = bert(dropout, layers=count)
    regions.prepare(made, gradient_checkpointing=recomputed)
    return made


def agree(train: Callable[[Any], Any], dropout: float = 0.0) -> None:
    """Training a network that keeps its activations and one that recomputes them is the same."""
    kept, recomputed = (train(network(each, dropout)) for each in (False, True))
    assert all(
        layer.gradient_checkpointing for layer in recomputed.module.task.network.bert.encoder.layer
    )
    close(recomputed.gradients, kept.gradients)
    close(recomputed.weights, kept.weights)
    close(recomputed.module.deltas, kept.module.deltas)
    for one, other in zip(recomputed.module.seen, kept.module.seen, strict=True):
        close(one.logits, other.logits)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("name", EVERY)
def test_every_method_has_the_same_gradients(name: str, dropout: float):
    agree(lambda net: fit(EVERY[name](classify(net), sgd()), batches(3)), dropout)


@pytest.mark.parametrize("name", ["pgd_b", "smart", "llr"])
def test_also_where_every_pass_has_other_dropout_masks(name: str):
    build = partial(EVERY[name], same_dropout=False)
    agree(lambda net: fit(build(classify(net), sgd()), batches(3)), 0.2)


@pytest.mark.parametrize("update", UPDATES)
def test_every_update_has_the_same_gradients(update: str):
    descent = partial(sgd, update=UPDATES[update]())
    agree(lambda net: fit(EVERY["noise"](classify(net), descent()), batches(3)), 0.2)


@pytest.mark.parametrize("name", ["smart", "infobert", "llr"])
def test_graphs_that_are_passed_through_twice_have_the_same_gradients(name: str):
    descent = partial(sgd, flood=Fixed(0.5), proximal=VBPP(1.0), accumulate_grad_batches=2)
    agree(lambda net: fit(EVERY[name](Floodable(net), descent()), batches(4)), 0.2)


@pytest.mark.parametrize("name", ["pgd_b", "freelb", "yopo"])
def test_autocast_holds_for_what_is_recomputed(name: str):
    def train(recomputed: bool) -> Any:
        plugin = MixedPrecision("bf16-mixed", "cpu")
        module = EVERY[name](classify(network(recomputed, 0.2).float()), sgd())
        return fit(module, batches(2), precision=None, plugins=[plugin])

    same(train(True).gradients, train(False).gradients)


def test_weights_that_stood_still_before_go_on_to():
    def train(net: Any) -> Any:
        net.bert.embeddings.requires_grad_(False)
        net.bert.encoder.layer[0].requires_grad_(False)
        return fit(EVERY["pgd_b"](classify(net), sgd()), batches(2))

    agree(train, 0.2)


@pytest.mark.parametrize(("name", "options"), [("pgd_b", {}), ("yopo_pmp", {"split": "norm"})])
def test_statistics_stand_still_while_a_pass_beside_the_one_that_counts_is_recomputed(
    name: str, options: dict[str, Any]
):

    class Recomputed(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, points: Tensor) -> Any:
            return checkpoint(self.inner, points, use_reentrant=False)

    net = MeanPool(bend=True, norm=True)
    inner = net.norm
    assert inner is not None
    net.norm = Recomputed(inner)  # pyright: ignore[reportAttributeAccessIssue]
    module = EVERY[name](classify(net), sgd(lr=0.0), **options)
    mean = inner.get_buffer("running_mean").clone()
    fit(module, batches())
    # Of the training passes themselves PyTorch counts both runs.
    assert inner.num_batches_tracked == 2 * sum(seen.trains for seen in module.seen)
    assert not torch.equal(inner.get_buffer("running_mean"), mean)


# ---- what it is for ------------------------------------------------------------------------------


def kept_bytes(net: Any, frozen: bool) -> int:
    """Of all that autograd keeps for the backward pass of one batch, but for the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    (batch,) = batches(size=8, tokens=16)
    delta = torch.zeros(8, 16, 16, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        inject.perturbed(net.get_input_embeddings(), delta),
        standstill.frozen(net) if frozen else nullcontext(),
    ):
        loss = classify(net)(batch).square().sum()
        torch.autograd.grad(loss, delta)
    return sum(sizes.values())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_keeps_little_more_than_its_input(frozen: bool):
    def per_layer(recomputed: bool) -> float:
        few, many = (kept_bytes(network(recomputed, count=n), frozen) for n in (2, 8))
        return (many - few) / 6

    hidden = 8 * 16 * 16 * 8  # batch, tokens, width, bytes
    assert per_layer(True) <= 1.1 * hidden
    assert per_layer(False) >= 5 * hidden


def test_each_layer_runs_once_more_for_each_backward_pass():
    calls = {False: 0, True: 0}
    for recomputed in calls:
        net = network(recomputed)

        def count(*_: object, recomputed: bool = recomputed) -> None:
            calls[recomputed] += 1

        for layer in net.bert.encoder.layer:
            layer.attention.register_forward_hook(count)
        fit(EVERY["pgd_b"](classify(net), sgd()), batches())  # 3 ascents and a training pass
    assert calls == {False: 2 * 4, True: 2 * 8}


# ---- where it is, and where not ------------------------------------------------------------------


def test_the_embeddings_keep_no_hook_and_evaluation_recomputes_nothing():
    net = network(True)
    assert not net.get_input_embeddings()._forward_hooks
    (batch,) = batches()
    task = classify(net).eval()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    loss = task(inputs).sum()
    assert "Checkpoint" not in str(loss.grad_fn)
    assert list(net.state_dict()) == list(bert(layers=2).state_dict())


def test_a_copy_recomputes_too_and_is_another_network():
    net, (batch,) = network(True), batches()
    twin = copy.deepcopy(net)
    assert all(layer.gradient_checkpointing for layer in twin.bert.encoder.layer)
    Classification(twin, num_labels=2)(batch).square().sum().backward()
    assert all(weight.grad is None for weight in net.parameters())
    assert all(weight.grad is not None for weight in twin.bert.encoder.parameters())


def test_decoders_keep_no_caches():
    sizes: dict[str, Any] = {"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 30}
    net = GPT2ForSequenceClassification(GPT2Config(**sizes, pad_token_id=0))
    regions.prepare(net, gradient_checkpointing=True)
    assert not net.config.use_cache
    (batch,) = batches()
    classify(net)(batch).square().sum().backward()


INSIDE = "bert.encoder.layer.1.output.dense"
LINE = rf"={INSIDE}: lies inside bert\.encoder\.layer\.1, which is recomputed without hooks"


def test_places_inside_a_recomputed_layer_are_refused():
    net = network(True)
    remedy = r"; name that layer itself, .* or set model\.gradient_checkpointing=false$"
    with pytest.raises(ValueError, match=rf"^model\.at{LINE}{remedy}"):
        classify(net, at=INSIDE)
    with pytest.raises(ValueError, match=rf"^method\.split{LINE}{remedy}"):
        EVERY["yopo"](classify(net), sgd(), split=INSIDE)


@pytest.mark.parametrize("split", ["bert.embeddings", "bert.encoder.layer.1", "bert.encoder"])
@pytest.mark.parametrize("form", ["gd", "pmp"])
def test_layers_themselves_and_what_lies_outside_of_them_are_no_such_places(split: str, form: str):
    build = partial(EVERY["yopo"], split=split, form=form)
    agree(lambda net: fit(build(classify(net), sgd()), batches(2)), 0.2)
    assert layers.find_layer(network(True), split) is not None


def test_without_recomputing_every_place_will_do():
    assert classify(network(False), at=INSIDE).width == 16


def test_networks_that_cannot_recompute_are_refused():
    line = r"^model\.gradient_checkpointing=true: \w+ cannot recompute its layers; set it to false$"
    sizes: dict[str, Any] = {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 30}
    albert = AlbertForSequenceClassification(AlbertConfig(**sizes, intermediate_size=8))
    for net in (albert, MeanPool()):
        with pytest.raises(ValueError, match=line):
            regions.prepare(net, gradient_checkpointing=True)
