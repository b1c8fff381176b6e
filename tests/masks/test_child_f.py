"""ChildF: a random part of the weights moves at every step."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from testbed import (
    FINETUNE,
    MeanPool,
    Run,
    Tensors,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    same,
    sgd,
    weights,
)
from torch import Tensor

from lit_adv.descent import adamw
from lit_adv.masks.child_f import ChildF
from lit_adv.tasks.classification import Classification


def _masked(mask: ChildF, task: Classification, grads: Tensors, step: int) -> Tensors:
    """What becomes of these gradients."""
    for name, weight in task.named_parameters():
        weight.grad = grads[name].clone()
    mask.apply(task, step)
    return {name: w.grad for name, w in task.named_parameters() if w.grad is not None}


def _ones(task: Classification) -> Tensors:
    return {name: torch.ones_like(w) for name, w in task.named_parameters()}


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


def _stepped(mask: ChildF | None, seed: int = 0, **options: Any) -> tuple[Run, Tensors]:
    """One step of plain descent at rate 1, and what it took off."""
    task = classify(bert())
    start = weights(task)
    more = {} if mask is None else {"mask": mask}
    run = fit(FINETUNE(task, sgd(lr=1.0, **more, **options)), batches(), seed=seed)
    return run, {name: start[name] - run.weights[name] for name in start}


# ---- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_random_share_of_the_gradient_is_kept_and_divided_by_the_share(share: float):
    task = classify(bert())
    found = _flat(_masked(ChildF(share), task, _ones(task), step=0))
    assert sorted(set(found.tolist())) == [0.0, 1 / share]
    count, spread = len(found), math.sqrt(share * (1 - share) / len(found))
    assert count > 3000
    assert abs(float((found > 0).double().mean()) - share) < 4 * spread


def test_over_steps_the_mean_is_the_gradient_and_the_spread_that_of_bernoulli():
    task, mask, steps = classify(MeanPool()), ChildF(0.3), 2000
    stream = torch.Generator().manual_seed(0)
    grads = {n: torch.randn(w.shape, generator=stream).double() for n, w in _ones(task).items()}
    seen = torch.stack([_flat(_masked(mask, task, grads, step)) for step in range(steps)])
    grad = _flat(grads)
    spread = (grad.square() * 0.7 / 0.3).sqrt()
    away = (seen.mean(0) - grad) / (spread / math.sqrt(steps))
    assert float(away.abs().max()) < 4.5
    assert 0.85 < float(away.std()) < 1.15
    torch.testing.assert_close(seen.std(0), spread, rtol=0.15, atol=0)
    # Neighbouring steps and neighbouring weights are drawn apart.
    kept = (seen != 0).double() - 0.3
    for a, b in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])):
        assert abs(float((a * b).mean())) < 4.5 * 0.21 / math.sqrt(a.numel())


def test_under_adam_the_mean_update_shrinks_by_the_root_of_the_share():
    """Not by the share, and not at all by what the gradient is divided by."""
    share, stream = 0.3, torch.Generator().manual_seed(0)

    def speed(mask: ChildF | None) -> float:
        task = classify(MeanPool(width=64))
        start = weights(task)
        optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3, weight_decay=0.0)
        stream.manual_seed(0)
        for step in range(400):
            for weight in task.parameters():
                noise = torch.randn(weight.shape, generator=stream, dtype=torch.float64)
                weight.grad = 0.5 + noise
            if mask is not None:
                mask.apply(task, step)
            optimizer.step()
        return float((_flat(start) - _flat(weights(task))).mean())

    assert speed(ChildF(share)) / speed(None) == pytest.approx(math.sqrt(share), rel=0.05)


def test_it_masks_the_weights_named_and_no_others():
    task = classify(bert())
    found = _masked(ChildF(0.5, only="encoder"), task, _ones(task), step=0)
    for name, value in found.items():
        if "encoder" not in name:
            same(value, torch.ones_like(value))
    assert any((value == 0).any() for name, value in found.items() if "encoder" in name)


def test_what_is_masked_is_zero_even_if_it_was_infinite():
    task, mask = classify(MeanPool(width=16)), ChildF(0.5)
    infinite = {name: torch.full_like(w, torch.inf) for name, w in _ones(task).items()}
    found = _flat(_masked(mask, task, infinite, step=0))
    assert set(found.tolist()) == {0.0, math.inf}


def test_frozen_weights_and_weights_without_a_gradient_are_left_alone():
    network = bert()
    network.bert.embeddings.requires_grad_(False)
    run = fit(FINETUNE(classify(network), sgd(mask=ChildF(0.5))), batches())
    plain = weights(classify(bert()))
    for name, weight in run.weights.items():
        if ".embeddings." in name:
            same(weight, plain[name])


# ---- which mask ----------------------------------------------------------------------------------


def test_the_mask_depends_on_seed_and_step_and_on_nothing_else():
    """So every process draws the same one, whatever its dropout drew."""
    task = classify(bert())

    def drawn(seed: int, step: int, drawn_before: int) -> Tensor:
        torch.manual_seed(seed)
        torch.rand(drawn_before)
        before = torch.get_rng_state()
        found = _flat(_masked(ChildF(0.5), task, _ones(task), step))
        same(torch.get_rng_state(), before)
        return found

    first = drawn(1, 3, 0)
    same(drawn(1, 3, 17), first)
    for other in (drawn(2, 3, 0), drawn(1, 4, 0), drawn(1, 2, 0), drawn(0, 4, 0)):
        agree = float((other == first).double().mean())
        assert abs(agree - 0.5) < 4 * 0.5 / math.sqrt(len(first))


def test_there_is_one_mask_per_optimizer_step():
    def train(parts: int, data: list[Tensors]) -> Run:
        descent = sgd(mask=ChildF(0.5), accumulate_grad_batches=parts)
        return fit(FINETUNE(classify(MeanPool(width=16)), descent), data)

    data = batches(3, size=6)
    whole = train(1, data)
    parts = train(3, [part for batch in data for part in cut(batch, 1, 2, 3)])
    close(parts.weights, whole.weights)


def test_the_next_training_draws_by_its_own_seed():
    descent = sgd(mask=ChildF(0.5))
    first = fit(FINETUNE(classify(bert()), descent), batches(), seed=0)
    second = fit(FINETUNE(classify(bert()), descent), batches(), seed=1)
    alone = fit(FINETUNE(classify(bert()), sgd(mask=ChildF(0.5))), batches(), seed=1)
    same(second.weights, alone.weights)
    assert not torch.equal(_flat(second.weights), _flat(first.weights))


@pytest.mark.filterwarnings("ignore:.*create the checkpoint need to be provided")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_training_draws_the_masks_that_were_due(dropout: float, tmp_path: Path):
    def train(seed: int, **options: Any) -> Run:
        descent = sgd(optimizer=partial(adamw, lr=0.01), mask=ChildF(0.5))
        module = FINETUNE(classify(bert(dropout)), descent)
        return fit(module, batches(3), epochs=2, seed=seed, **options)

    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = train(0, callbacks=[save], enable_checkpointing=True)
    rest = train(7, resume=str(tmp_path / "epoch=0.ckpt"))
    same(rest.weights, whole.weights)


# ---- in the step ---------------------------------------------------------------------------------


def test_the_gradient_is_masked_before_it_is_clipped():
    run, free = _stepped(ChildF(0.5))
    assert _flat(free).norm() > 0.2
    close(free, {name: 2 * run.gradients[0][name] * (free[name] != 0) for name in free})
    _, clipped = _stepped(ChildF(0.5), gradient_clip_val=0.1)
    norm = _flat(free).norm()
    close(_flat(clipped), 0.1 * _flat(free) / (norm + 1e-6))


def test_the_share_that_moves_is_logged():
    run, taken = _stepped(ChildF(0.3))
    slopes = _flat(run.gradients[0]) != 0
    kept = float((_flat(taken)[slopes] != 0).double().mean())
    assert run.logs[0]["mask/share"] == pytest.approx(kept, abs=0.02)
    assert abs(run.logs[0]["mask/share"] - 0.3) < 0.03


def test_a_share_of_one_is_no_mask():
    run, taken = _stepped(ChildF(1.0))
    plain, all_taken = _stepped(None)
    same(taken, all_taken)
    assert "mask/share" not in run.logs[0] and not ChildF(1.0).acts


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan, True])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(ValueError, match=r"^mask\.share="):
        ChildF(share)


def test_a_name_that_no_weight_has_is_refused():
    with pytest.raises(ValueError, match=r"^mask\.only=decoder: no weight has this in its name"):
        fit(FINETUNE(classify(MeanPool()), sgd(mask=ChildF(0.5, only="decoder"))), batches())


def test_weights_without_a_gradient_are_left_alone():
    task = classify(bert())
    assert ChildF(share=0.5, only="pooler").apply(task, 0) == 1
