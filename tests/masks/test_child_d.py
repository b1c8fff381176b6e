"""ChildD: the weights with the largest Fisher information move, the others stay."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from testbed import (
    FINETUNE,
    METHODS,
    MeanPool,
    Run,
    Tensors,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    loss,
    same,
    sgd,
    weights,
)
from torch import Tensor, nn

from lit_adv.descent import adamw
from lit_adv.masks import child_d
from lit_adv.masks.child_d import ChildD, largest
from lit_adv.masks.child_f import ChildF
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.plain import Plain
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import Update


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


def _fisher(network: nn.Module, data: list[Tensors], only: str) -> Tensors:
    """Mean square of the gradient of every example, by hand, without dropout."""
    still = deepcopy(network).eval()
    named = {n: w for n, w in still.named_parameters() if only in f"network.{n}"}
    scores = {f"network.{n}": torch.zeros_like(w) for n, w in named.items()}
    count = 0
    for batch in data:
        for example in cut(batch, *[1] * len(batch["labels"])):
            grads = torch.autograd.grad(loss(still, example).sum(), list(named.values()))
            for score, grad in zip(scores.values(), grads, strict=True):
                score += grad.square()
            count += 1
    return {name: score / count for name, score in scores.items()}


def _moved(
    mask: ChildD | None, data: list[Tensors], network: nn.Module | None = None, **options: Any
) -> tuple[Run, Tensors]:
    """Plain descent over these batches, and where the weights are then unlike before."""
    task = classify(bert() if network is None else network)
    start = weights(task)
    more = {} if mask is None else {"mask": mask}
    run = fit(FINETUNE(task, sgd(**more, **options)), data)
    return run, {name: run.weights[name] != start[name] for name in start}


# ---- which weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.777])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_exactly_the_share_with_the_largest_scores_moves(share: float, dropout: float):
    data = batches(3)
    scores = _fisher(bert(dropout), data, "layer")
    order = _flat(scores).argsort(descending=True, stable=True)
    count = round(share * len(order))
    expected = torch.zeros(len(order), dtype=torch.bool)
    expected[order[:count]] = True
    # What is dropped has no gradient, so it takes some steps until all that may move have moved.
    _, there = _moved(ChildD(share), data * 4, bert(dropout))
    found = torch.cat([there[name].flatten() for name in scores])
    same(found, expected)
    assert int(found.sum()) == count


@pytest.mark.parametrize("count", [0, 1, 3, 5, 6])
def test_of_equal_scores_the_first_are_taken(count: int):
    scores = torch.tensor([0.0, 2.0, 0.0, 2.0, 2.0, 0.0])
    order = [1, 3, 4, 0, 2, 5]
    found = largest(scores, count)
    assert sorted(found.nonzero().flatten().tolist()) == sorted(order[:count])


def test_of_weights_that_no_example_uses_the_first_fill_up_the_count():
    """Their scores are all zero."""
    data, mask = batches(), ChildD(0.8, only="words")
    fit(FINETUNE(classify(MeanPool()), sgd(mask=mask)), data)
    (kept,) = mask._masks.values()
    assert int(kept.sum()) == 96
    used = data[0]["input_ids"][data[0]["attention_mask"].bool()].unique()
    assert kept[used].all()
    spare = torch.ones(30, dtype=torch.bool)
    spare[used] = False
    flags = kept[spare].flatten().int()
    assert (flags.diff() <= 0).all() and 0 < flags.sum() < len(flags)


def test_embeddings_and_head_always_train():
    run, there = _moved(ChildD(0.1), batches(3))
    for name, moved in there.items():
        if "layer" not in name:
            assert moved[run.gradients[0][name] != 0].all(), name


def test_one_share_is_taken_over_all_tensors_together():
    mask = ChildD(0.2, only="")
    fit(FINETUNE(classify(bert()), sgd(mask=mask)), batches())
    shares = [float(kept.double().mean()) for kept in mask._masks.values()]
    assert max(shares) > 0.9 and min(shares) < 0.05


@pytest.mark.parametrize("examples", [1, 5, 8])
def test_the_scores_may_come_from_the_first_examples_alone(examples: int):
    data = batches(3)
    some = [cut(batch, *[1] * 4)[i] for batch in data for i in range(4)][:examples]
    scores = _flat(_fisher(bert(), some, "layer"))
    mask = ChildD(0.3, examples=examples)
    fit(FINETUNE(classify(bert()), sgd(mask=mask)), data)
    found = _flat(mask._masks)
    assert scores[found].min() > scores[~found].max()


def test_batches_that_are_not_trained_on_are_not_scored():
    data, limited, alone = batches(5), ChildD(0.3), ChildD(0.3)
    fit(FINETUNE(classify(bert()), sgd(mask=limited)), data, limit_train_batches=2)
    fit(FINETUNE(classify(bert()), sgd(mask=alone)), data[:2])
    same(limited._masks, alone._masks)


# ---- what masking is -----------------------------------------------------------------------------


@pytest.mark.parametrize("update", [Plain(), SAM(0.3), Backstitch(0.5), Alternate(0.5)])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, adamw])
def test_without_decay_masked_weights_stay_to_the_last_bit(update: Update, optimizer: Any):
    rate, mask = partial(optimizer, lr=0.01, weight_decay=0.0), ChildD(0.3)
    _, there = _moved(mask, batches(4), optimizer=rate, update=update)
    for name, kept in mask._masks.items():
        assert not there[name][~kept].any(), name


def test_with_decay_they_shrink_by_it_alone():
    mask, task = ChildD(0.3), classify(bert())
    start = weights(task)
    descent = sgd(optimizer=partial(adamw, lr=0.1, weight_decay=0.5), mask=mask)
    run = fit(FINETUNE(task, descent), batches(3))
    for name, kept in mask._masks.items():
        shrunk = 0.95**3 if start[name].ndim > 1 else 1.0
        close(run.weights[name][~kept], shrunk * start[name][~kept])


def test_the_weights_kept_step_as_they_would_without_a_mask():
    """Their gradient is not divided by the share; dropout draws what it would have drawn."""
    mask = ChildD(0.3)
    masked, _ = _moved(mask, batches(), bert(0.3))
    plain, _ = _moved(None, batches(), bert(0.3))
    same(masked.gradients, plain.gradients)
    for name, weight in plain.weights.items():
        kept = mask._masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        same(masked.weights[name][kept], weight[kept])


def test_the_gradient_is_masked_before_it_is_clipped():
    def taken(**options: Any) -> Tensor:
        task = classify(bert())
        start = weights(task)
        descent = sgd(lr=1.0, mask=ChildD(0.3, only=""), **options)
        run = fit(FINETUNE(task, descent), batches())
        return _flat({name: start[name] - run.weights[name] for name in start})

    free = taken()
    assert free.norm() > 0.2
    close(taken(gradient_clip_val=0.1), 0.1 * free / (free.norm() + 1e-6))


def test_the_share_that_moves_is_logged():
    run, _ = _moved(ChildD(0.3), batches())
    total = sum(w.numel() for name, w in run.weights.items() if "layer" in name)
    assert run.logs[0]["mask/share"] == pytest.approx(round(0.3 * total) / total)


def test_a_share_of_one_is_no_mask_and_scores_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child_d, "diagonal", None)
    masked, _ = _moved(ChildD(1.0), batches(3), bert(0.3))
    plain, _ = _moved(None, batches(3), bert(0.3))
    same(masked.weights, plain.weights)


# ---- trainings one after the other ---------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per Fisher pass."""
    made: list[int] = []
    honest: Callable[..., Tensors] = child_d.diagonal

    def counting(*args: Any) -> Tensors:
        made.append(1)
        return honest(*args)

    monkeypatch.setattr(child_d, "diagonal", counting)
    return made


@pytest.mark.filterwarnings("ignore:.*create the checkpoint need to be provided")
@pytest.mark.parametrize("name", ["finetune", "freelb"])
def test_a_resumed_training_has_the_same_mask_and_does_not_score_again(
    name: str, passes: list[int], tmp_path: Path
):
    def train(**options: Any) -> Run:
        descent = sgd(optimizer=partial(adamw, lr=0.01), mask=ChildD(0.3))
        return fit(METHODS[name](classify(bert(0.3)), descent), batches(3), epochs=2, **options)

    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = train(callbacks=[save], enable_checkpointing=True)
    assert len(passes) == 1
    rest = train(resume=str(tmp_path / "epoch=0.ckpt"), seed=7)
    assert len(passes) == 1
    same(rest.weights, whole.weights)
    masks = [run.module.descent.mask for run in (rest, whole)]
    assert isinstance(masks[0], ChildD) and isinstance(masks[1], ChildD)
    same(masks[0]._masks, masks[1]._masks)


def test_a_checkpoint_holds_a_bit_per_weight_and_nothing_to_execute(tmp_path: Path):
    mask = ChildD(0.3)
    run, _ = _moved(mask, batches())
    run.trainer.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["lit_adv"]["mask"]
    restored = ChildD(0.3)
    restored.load_state_dict(state)
    restored.begin(run.module.task, list)  # without a text to score by
    same(restored._masks, mask._masks)
    bits = sum(part.numel() for part in _tensors(state))
    total = sum(w.numel() for name, w in run.weights.items() if "layer" in name)
    assert bits <= total / 8 + len(mask._masks)


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state
    return [tensor for part in parts if not isinstance(part, int) for tensor in _tensors(part)]


def test_the_next_training_scores_its_own_network(passes: list[int]):
    other = bert()
    for weight in other.parameters():
        nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(5))
    descent = sgd(mask=ChildD(0.3))
    fit(FINETUNE(classify(bert()), descent), batches())
    second = fit(FINETUNE(classify(deepcopy(other)), descent), batches())
    alone = fit(FINETUNE(classify(deepcopy(other)), sgd(mask=ChildD(0.3))), batches())
    assert len(passes) == 3
    same(second.weights, alone.weights)


@pytest.mark.filterwarnings("ignore:.*create the checkpoint need to be provided")
@pytest.mark.parametrize("first, then", [(ChildF, ChildD), (ChildD, ChildF)])
def test_with_a_checkpoint_of_another_a_mask_begins_anew(
    first: type[ChildF | ChildD], then: type[ChildF | ChildD], tmp_path: Path
):
    run = fit(FINETUNE(classify(bert()), sgd(mask=first(0.3))), batches())
    run.trainer.save_checkpoint(tmp_path / "x.ckpt")
    module = FINETUNE(classify(bert()), sgd(mask=then(0.3)))
    said = f"its mask was {first.__name__}; {then.__name__} begins anew"
    with pytest.warns(UserWarning, match=said):
        rest = fit(module, batches(), epochs=2, resume=str(tmp_path / "x.ckpt"))
    assert rest.logs[-1]["mask/share"] < 0.5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(ValueError, match=r"^mask\.share="):
        ChildD(share)


def test_no_examples_and_names_that_no_weight_has_are_refused():
    with pytest.raises(ValueError, match=r"^mask\.examples=0: .*at least 1"):
        ChildD(examples=0)
    with pytest.raises(ValueError, match=r"^mask\.only=layer: no weight has this in its name"):
        fit(FINETUNE(classify(MeanPool()), sgd(mask=ChildD())), batches())
