"""YOPO against rounds by hand: p, the ascents through the first layers, and both gradients."""

from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from testbed import (
    FINETUNE,
    PERTURBING,
    Answer,
    Floodable,
    MeanPool,
    Method,
    Run,
    Tensors,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    recording,
    sgd,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    FunnelConfig,
    FunnelForSequenceClassification,
)

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.layers import captured, find_layer, first_of
from lit_adv.methods.yopo import YOPO as Yopo
from lit_adv.proximal.mbpp import MBPP
from lit_adv.tasks.classification import Classification

YOPO: Method = partial(
    recording(Yopo),
    rounds=3,
    inner_steps=3,
    step_size=0.2,
    radius=0.9,
    init_size=0.0,
    norm="l2",
    form="gd",
    split=None,
)

both = pytest.mark.parametrize("form", ["gd", "pmp"])


class Reseed(L.Callback):
    """Every batch draws its dropout masks from a known place of the stream."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(7)


def _inside(network: nn.Module, batch: Tensors, delta: Tensor) -> tuple[Tensor, Tensor]:
    """What the first layer answers, and the losses, with the same dropout masks each time."""
    outputs: list[Any] = []
    layer = network.get_submodule("bert.encoder.layer.0")
    handle = layer.register_forward_hook(lambda _, args, output: outputs.append(output))
    torch.manual_seed(7)
    losses = loss(network, batch, delta)
    handle.remove()
    return outputs[0] if isinstance(outputs[0], Tensor) else outputs[0][0], losses


def _adjoint(network: nn.Module, batch: Tensors, delta: Tensor) -> Tensor:
    """p, of the sum over examples."""
    hidden, losses = _inside(network, batch, delta)
    return torch.autograd.grad(losses.sum(), hidden)[0]


def _search(network: nn.Module, batch: Tensors, delta: Tensor, p: Tensor) -> Tensor:
    """Three ascents of `<p, f0(e + delta)>`, p as it is."""
    for _ in range(3):
        delta = delta.detach().requires_grad_()
        (grad,) = torch.autograd.grad((p * _inside(network, batch, delta)[0]).sum(), delta)
        moved = delta.detach() + 0.2 * grad / norms(grad).view(-1, 1, 1)
        size = norms(moved).view(-1, 1, 1)
        delta = torch.where(size > 0.9, moved * 0.9 / size, moved)
    return delta


def _is_front(name: str) -> bool:
    return ".embeddings." in name or ".layer.0." in name


def _reference_gd(network: nn.Module, batch: Tensors, level: float) -> tuple[list[Tensor], Tensors]:
    delta = torch.zeros(4, 7, 16).double()
    deltas = [delta]
    for _ in range(3):
        delta = _search(network, batch, delta, _adjoint(network, batch, delta))
        deltas.append(delta)
    losses = torch.stack([_inside(network, batch, delta)[1] for delta in deltas[1:]])
    return deltas, derivative(torch.where(losses < level, -losses, losses).mean(), network)


def _reference_pmp(
    network: nn.Module, batch: Tensors, level: float
) -> tuple[list[Tensor], Tensors]:
    """The rest by its loss at every round's start, f0 by `<p, f0>` at its end, with the old p."""
    delta = torch.zeros(4, 7, 16).double()
    deltas, rest, front = [], torch.zeros(()), torch.zeros(())
    for _ in range(3):
        deltas.append(delta)
        losses = _inside(network, batch, delta)[1]
        slope = torch.where(losses < level, -1, 1).detach()
        rest = rest + (slope * losses).mean() / 3
        p = _adjoint(network, batch, delta)
        delta = _search(network, batch, delta, p)
        moved = _inside(network, batch, delta)[0]
        front = front + (slope.view(-1, 1, 1) * p * moved).sum() / 4 / 3
    weights = dict(network.named_parameters())
    of_rest, of_front = (
        torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        for total in (rest, front)
    )
    named = zip(weights, of_rest, of_front, strict=True)
    return deltas, {f"network.{n}": g if _is_front(n) else r for n, r, g in named}  # pyright: ignore


REFERENCES = {"gd": _reference_gd, "pmp": _reference_pmp}


@both
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("flood", [None, 1.3])
def test_perturbations_and_gradient_are_the_papers(form: str, dropout: float, flood: float | None):
    """Nothing counted twice, f0 by the old p, each example with the flood's slope of its loss."""
    network, (batch,) = bert(dropout, layers=2), batches()
    pieces = {} if flood is None else {"flood": Individual(flood)}
    module = YOPO(Floodable(network), sgd(lr=0.0, **pieces), form=form)
    run = fit(module, [batch], callbacks=[Reseed()])
    deltas, expected = REFERENCES[form](network, batch, 0.0 if flood is None else flood)
    close(run.module.deltas, deltas)
    close(run.gradients[0], expected)
    below = run.module.seen[1].losses < 1.3  # whose p turns for some examples and not for others
    assert below.any() and not below.all()


@both
def test_a_flood_of_the_whole_batch_turns_all_weights(form: str):
    descents = sgd(lr=0.0), sgd(lr=0.0, flood=Fixed(9.0))
    up, down = (
        fit(YOPO(Floodable(bert(layers=2)), descent, form=form), batches()).gradients[0]
        for descent in descents
    )
    close(down, {name: -grad for name, grad in up.items()})


@both
def test_micro_batches_of_any_size_are_one_batch(form: str):
    (batch,) = batches(size=6)
    parts = {name: value.split([3, 2, 1]) for name, value in batch.items()}
    pieces = {"flood": Fixed(9.0), "proximal": MBPP(weight=2.0)}
    runs: list[Run] = []
    for data in ([batch], [{n: parts[n][i] for n in parts} for i in range(3)]):
        descent = sgd(accumulate_grad_batches=len(data), **pieces)
        runs.append(fit(YOPO(Floodable(bert(layers=2)), descent, form=form), list(data) * 2))
    close(runs[1].gradients, runs[0].gradients)


# ---- what it is in other words -------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_with_one_inner_step_the_path_is_pgds(norm: str):
    options = {"step_size": 0.2, "radius": 0.5, "norm": norm}
    pgd = PERTURBING["pgd_b"](classify(bert(layers=2)), sgd(), steps=4, init_size=0.0, **options)
    expected = fit(pgd, batches()).module.deltas
    for form, seen in (("gd", expected), ("pmp", expected[:4])):
        options = {**options, "rounds": 4, "inner_steps": 1, "form": form}
        close(fit(YOPO(classify(bert(layers=2)), sgd(), **options), batches()).module.deltas, seen)


def test_where_the_first_layers_are_affine_it_is_pgd_with_longer_steps():
    network = MeanPool(bend=True)
    options = {"norm": "linf", "radius": 0.5, "init_size": 0.0}
    yopo = YOPO(classify(network), sgd(lr=0.0), split="bend", step_size=0.07, **options)
    pgd = PERTURBING["pgd_b"](classify(network), sgd(lr=0.0), steps=3, step_size=0.21, **options)
    close(fit(yopo, batches()).module.deltas, fit(pgd, batches()).module.deltas)


@both
@pytest.mark.parametrize("still", [{"step_size": 0.0}, {"radius": 0.0}])
def test_without_a_perturbation_nothing_is_counted_twice(form: str, still: dict[str, float]):
    plain = gradient(FINETUNE, bert(layers=2), batches())
    close(gradient(YOPO, bert(layers=2), batches(), form=form, **still), plain)


@both
def test_with_dropout_all_full_passes_have_the_same_masks_unless_turned_off(form: str):
    for shared in (True, False):
        task = classify(bert(dropout=0.3, layers=2))
        module = YOPO(task, sgd(), form=form, step_size=0.0, same_dropout=shared)
        first, *others = fit(module, batches()).module.seen
        assert all(torch.equal(each.logits, first.logits) is shared for each in others)


# ---- what runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form, full, front", [("gd", 4, 4 + 6), ("pmp", 3, 3 + 9)])
def test_between_full_passes_the_rest_never_runs(form: str, full: int, front: int):
    network, count = bert(layers=3), {"0": 0, "1": 0, "2": 0}

    def add(name: str) -> None:
        count[name] += 1

    for name, layer in network.bert.encoder.layer.named_children():
        layer.register_forward_hook(lambda *_, name=name: add(name))
    run = fit(YOPO(classify(network), sgd(), form=form), batches(2))
    assert len(run.module.seen) == 2 * full
    assert count == {"0": 2 * front, "1": 2 * full, "2": 2 * full}


@both
def test_statistics_move_once_for_every_full_pass_that_trains(form: str):
    network = MeanPool(norm=True)
    fit(YOPO(classify(network), sgd(), form=form, split="norm"), batches(2))
    assert network.norm is not None
    assert network.norm.num_batches_tracked == 2 * 3


@both
@pytest.mark.parametrize("split", [None, "bert.encoder.layer.1"])
def test_the_cost_is_what_is_computed(form: str, split: str | None):
    def count(module: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            fit(module, batches(2))
        return counter.get_total_flops()

    yopo = YOPO(classify(bert(layers=4)), sgd(), form=form, split=split)
    plain = FINETUNE(classify(bert(layers=4)), sgd())
    assert count(yopo) / count(plain) == pytest.approx(yopo.cost.relative, rel=0.06)


# ---- weights that serve both parts ---------------------------------------------------------------


class Twice(nn.Module):
    """One layer, applied twice, as in an ALBERT; the first time it is f0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words = nn.Embedding(30, 16)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.Tanh())])
        self.head = nn.Linear(16, 2)
        self.double()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def rest(self, hidden: Tensor) -> Tensor:
        return self.head(self.layers[0](hidden).mean(1))

    def forward(self, input_ids: Tensor) -> Answer:
        return Answer(self.rest(self.layers[0](self.words(input_ids))))


def test_a_weight_of_both_parts_trains_by_both():
    network, (batch,) = Twice(), batches()
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    options = {"rounds": 1, "inner_steps": 1, "radius": 5.0, "step_size": 2.0}
    run = fit(YOPO(classify(network), sgd(lr=0.0), form="pmp", **options), [batch])

    words = network.words(batch["input_ids"])
    delta = torch.zeros_like(words).requires_grad_()
    before = network.layers[0](words.detach() + delta)
    hidden = before.detach().requires_grad_()
    losses = F.cross_entropy(network.rest(hidden), batch["labels"], reduction="none")
    (p,) = torch.autograd.grad(losses.sum(), hidden, retain_graph=True)
    (grad,) = torch.autograd.grad((p * before).sum(), delta)
    delta = (2.0 * grad / norms(grad).view(-1, 1, 1)).detach()
    objective = losses.mean() + (p * network.layers[0](words + delta)).sum() / 4
    close(run.gradients[0], derivative(objective, network))


@both
def test_without_a_perturbation_an_albert_is_fine_tuned_plainly(form: str):
    def albert() -> nn.Module:
        torch.manual_seed(1)
        width: dict[str, Any] = dict.fromkeys(
            ("embedding_size", "hidden_size", "intermediate_size"), 16
        )
        config = AlbertConfig(vocab_size=30, num_hidden_layers=3, num_attention_heads=2, **width)
        return AlbertForSequenceClassification(config).double()

    plain = gradient(FINETUNE, albert(), batches())
    close(gradient(YOPO, albert(), batches(), form=form, step_size=0.0), plain)


# ---- settings ------------------------------------------------------------------------------------


def test_another_split_searches_deeper():
    options = {"rounds": 1, "inner_steps": 3}
    shallow, deep = (
        fit(YOPO(classify(bert(layers=3)), sgd(), split=split, **options), batches())
        for split in (None, "bert.encoder.layer.2")
    )
    assert not torch.allclose(shallow.module.deltas[-1], deep.module.deltas[-1])
    network, (batch,) = bert(layers=3), batches()
    for run in (shallow, deep):
        start, end = run.module.deltas
        clean, ahead = (loss(network, batch, delta) for delta in (start, end))
        assert (ahead > clean).all()


@pytest.mark.parametrize("split", ["words", "no.such"])
def test_a_split_that_sees_no_perturbation_is_refused(split: str):
    with pytest.raises(ValueError, match=f"method.split={split}"):
        fit(YOPO(classify(MeanPool(bend=True)), sgd(), split=split), batches())


@both
def test_tokens_that_are_kept_stay_clean(form: str):
    (batch,) = batches()
    task = Classification(bert(layers=2), num_labels=2, special_tokens="keep")
    run = fit(YOPO(task, sgd(), form=form, norm="linf", init_size=0.3), [batch])
    kept = ~task.mask(batch)
    for delta in run.module.deltas:
        assert delta.any() and not delta[kept].any()


@pytest.mark.parametrize(
    "option, value",
    [
        ("rounds", 0),
        ("inner_steps", 0),
        ("inner_steps", 1.5),
        ("step_size", -0.1),
        ("radius", -1.0),
        ("init_size", -0.1),
        ("norm", "l1"),
        ("form", "sum"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: Any):
    with pytest.raises(ValueError, match=f"method.{option}={value}"):
        YOPO(classify(bert()), sgd(), **{option: value})


@both
def test_frozen_first_layers_are_left_as_they_are(form: str):
    network = bert(layers=2)
    for name, weight in network.named_parameters():
        weight.requires_grad = "embeddings" not in name and "layer.0." not in name
    run = fit(YOPO(Floodable(network), sgd(lr=0.0), form=form), batches())
    assert run.gradients[0] and all(grad.any() for grad in run.gradients[0].values())


def test_the_first_layer_may_stand_in_a_block():
    config = FunnelConfig(
        vocab_size=40, d_model=16, n_head=2, d_head=8, d_inner=16, block_sizes=[1, 1]
    )
    network = FunnelForSequenceClassification(config)
    assert type(find_layer(network)).__name__ == "FunnelLayer"
    blocks = network.funnel.encoder.blocks
    with captured(blocks[0]) as outputs, pytest.raises(ValueError, match="split=x: .*not call it"):
        first_of(outputs, "x")
