"""PGD on word embeddings against networks whose worst case has a closed form."""

from itertools import pairwise
from typing import Any

import lightning as L
import pytest
import torch
from testbed import (
    Answer,
    MeanPool,
    Stream,
    Tensors,
    batches,
    bert,
    classify,
    cut,
    same,
    weights,
    without_lightnings_own_warnings,
)
from torch import Tensor

from lit_adv.attacks.embedding_pgd import AccuracyUnderPGD, EmbeddingPGD
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch, Task


def _limits(task: Task, batch: Tensors, norm: str) -> Tensor:
    """How far the boundary is from each example in `MeanPool`: below zero beyond it.

    The margin moves by (w_y - w_c) . mean_t(delta_t): along it by the dual norm of its gradient,
    which is the same at every one of n tokens, ||w_y - w_c||_2 / sqrt(n) or ||w_y - w_c||_1.
    """
    network: Any = task.network
    logits = task(batch).detach()
    limits = []
    for z, y, n in zip(logits, batch["labels"], batch["attention_mask"].sum(1), strict=True):
        found = []
        for c in range(len(z)):
            if c != int(y):
                w = network.head.weight[y] - network.head.weight[c]
                rise = w.norm() / n**0.5 if norm == "l2" else w.abs().sum()
                found.append((z[y] - z[c]) / rise)
        limits.append(torch.stack(found).min())
    return torch.stack(limits).detach()


def _labelled(task: Task, count: int = 12) -> Tensors:
    """Examples of which two are misclassified."""
    (batch,) = batches(1, size=count)
    labels = task(batch).argmax(1)
    labels[:2] = 1 - labels[:2]
    return {**batch, "labels": labels}


@pytest.mark.parametrize("norm", ["l2", "linf", "soft-inf"])
def test_an_example_is_lost_just_where_the_ball_reaches_the_boundary(norm: Any):
    task = classify(MeanPool())
    batch = _labelled(task)
    limits = _limits(task, batch, "l2" if norm == "l2" else "linf")
    assert (limits < 0).sum() == 2
    for i, limit in enumerate(limits.tolist()):
        for factor in (0.9999, 1.0001):
            radius = abs(limit) * factor
            attack = EmbeddingPGD(radius=radius, step_size=radius, steps=8, norm=norm)
            lost = attack.lost(task, batch)
            assert bool(lost[i]) == (limit < 0 or factor > 1)
            assert lost.tolist() == (limits < radius).tolist()  # of all others too


@pytest.mark.parametrize("temperature", [0.2, 1.0, 100.0])
def test_of_two_classes_the_temperature_does_not_matter(temperature: float):
    task = classify(MeanPool())
    batch = _labelled(task)
    limits = _limits(task, batch, "l2")
    radius = float(limits.median()) * 1.001
    attack = EmbeddingPGD(radius=radius, step_size=radius / 4)
    expected = (limits < radius).tolist()
    assert attack.lost(task, batch, temperature).tolist() == expected
    assert True in expected[2:] and False in expected


def test_steps_that_end_before_the_boundary_do_not_reach_it():
    task = classify(MeanPool())
    batch = _labelled(task)
    limits = _limits(task, batch, "l2")
    step = float(limits[2:].median()) / 2.5
    for steps in (0, 1, 2, 3, 10):
        attack = EmbeddingPGD(radius=100.0, step_size=step, steps=steps)
        assert attack.lost(task, batch).tolist() == (limits < steps * step).tolist()
    for attack in (EmbeddingPGD(radius=0.0), EmbeddingPGD(step_size=0.0)):
        assert attack.lost(task, batch).tolist() == (limits < 0).tolist()


def test_padding_does_not_count_and_special_tokens_may_be_kept():
    network = MeanPool(leak=True)
    for special_tokens in ("perturb", "keep"):
        task = Classification(network, num_labels=2, special_tokens=special_tokens)
        batch = _labelled(task)
        # Padding is pooled too: the margin moves with the share of tokens that may.
        free = task.mask(batch).sum(1)
        w = network.head.weight[0] - network.head.weight[1]
        tokens = batch["attention_mask"].shape[1]
        logits = task(batch).detach()
        y = batch["labels"][:, None]
        margins = (logits.gather(1, y) - logits.gather(1, 1 - y))[:, 0]
        limits = margins / (w.norm().detach() * free**0.5 / tokens)
        for radius in limits[2:].sort()[0][:-1:3].tolist():
            attack = EmbeddingPGD(radius=radius * 1.001, step_size=radius / 3, steps=20)
            assert attack.lost(task, batch).tolist() == (limits < radius * 1.001).tolist()


def test_among_three_classes_a_lost_example_is_beyond_the_nearest_boundary():
    """The ascent of the loss need not end at the nearest one: a bound from below."""
    task = Classification(MeanPool(labels=3), num_labels=3)
    (batch,) = batches(1, size=30)
    batch = {**batch, "labels": task(batch).argmax(1)}
    limits = _limits(task, batch, "l2")
    radii = torch.tensor([0.3, 1.0, 1.5, 3.0]) * limits.median()
    counts = []
    for radius in radii.tolist():
        lost = EmbeddingPGD(radius=radius, step_size=radius / 4, steps=20).lost(task, batch)
        assert not (lost & (limits > radius)).any()
        counts.append(int(lost.sum()))
    assert counts == sorted(counts) and counts[0] < counts[-1]


class Waves(MeanPool):
    """Logits go up and down, so that a wide step uphill may lead down on the other side."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Answer:
        plain = super().forward(input_ids, attention_mask, inputs_embeds)
        return Answer((5 * plain.logits).sin())


def test_what_is_lost_on_the_way_stays_lost():
    network = Waves()
    task = classify(network)
    batch = _labelled(task, 40)
    mask = batch["attention_mask"].bool().unsqueeze(-1)
    words, delta = network.words(batch["input_ids"]).detach(), torch.zeros(1)
    on_the_way = []
    for _ in range(6):
        embedded = (words + delta * mask).requires_grad_()
        logits = network(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
        on_the_way.append(logits.argmax(1) != batch["labels"])
        (grad,) = torch.autograd.grad(task.losses(logits, batch).sum(), embedded)
        delta = delta + 2.0 * grad / grad.norm(dim=(1, 2), keepdim=True)
        delta = delta / (delta.norm(dim=(1, 2), keepdim=True) / 3.0).clamp(min=1)
    lost = EmbeddingPGD(radius=3.0, step_size=2.0, steps=5).lost(task, batch)
    assert lost.tolist() == torch.stack(on_the_way).any(0).tolist()
    assert (lost & ~on_the_way[-1]).any() and not lost.all()


def test_further_restarts_only_add():
    task = classify(MeanPool(bend=True))
    batch = _labelled(task)
    options: dict[str, Any] = {"radius": 1.0, "step_size": 0.4, "steps": 3}
    one = EmbeddingPGD(**options).lost(task, batch)
    for seed in range(3):
        more = EmbeddingPGD(restarts=4, **options)
        stream = torch.Generator().manual_seed(seed)
        lost = more.lost(task, batch, generator=stream)
        assert not (one & ~lost).any()
        assert same_lost(lost, more.lost(task, batch, generator=stream.manual_seed(seed)))


def same_lost(a: Tensor, b: Tensor) -> bool:
    """Whether the same examples are."""
    return a.tolist() == b.tolist()


def test_examples_do_not_depend_on_each_other():
    task = classify(bert().float())
    (batch,) = batches(1, size=12)
    attack = EmbeddingPGD(radius=0.6, step_size=0.2, steps=4)
    whole = attack.lost(task, batch)
    parts = [attack.lost(task, part) for part in cut(batch, 5, 7)]
    assert whole.tolist() == torch.cat(parts).tolist()
    assert 0 < int(whole.sum()) < 12 and whole.dtype == torch.bool


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool):
    task = classify(MeanPool(norm=True, dropout=0.5, bend=True))
    (batch,) = batches(1)
    task.train(training)
    network: Any = task.network
    network.norm.eval()
    network.words.weight.requires_grad_(False)
    loss = task.losses(task(batch), batch).sum()
    loss.backward()
    grads = {name: w.grad.clone() for name, w in task.named_parameters() if w.grad is not None}
    statistics = {name: buffer.clone() for name, buffer in task.named_buffers()}
    before, modes = weights(task), {name: m.training for name, m in task.named_modules()}
    needs = {name: w.requires_grad for name, w in task.named_parameters()}
    random, copy = torch.get_rng_state(), {name: t.clone() for name, t in batch.items()}

    lost = EmbeddingPGD(radius=2.0).lost(task, batch)

    same(weights(task), before)
    same({n: w.grad for n, w in task.named_parameters() if w.grad is not None}, grads)
    same(dict(task.named_buffers()), statistics)
    assert {name: m.training for name, m in task.named_modules()} == modes
    assert {name: w.requires_grad for name, w in task.named_parameters()} == needs
    assert torch.equal(torch.get_rng_state(), random)
    same(batch, copy)
    assert not network.words._forward_hooks
    assert same_lost(lost, EmbeddingPGD(radius=2.0).lost(task.eval(), batch))


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius": -1.0},
        {"step_size": -0.1},
        {"steps": 1.5},
        {"restarts": 0},
        {"norm": "l1"},
        {"radius": float("nan")},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]):
    (key,) = wrong
    with pytest.raises(ValueError, match=rf"attack\.{key}="):
        EmbeddingPGD(**wrong)


# ---- as a metric ---------------------------------------------------------------------------------


def test_the_accuracy_adds_up_over_batches_and_processes():
    task = classify(MeanPool())
    batch = _labelled(task)
    attack = EmbeddingPGD(radius=0.5, step_size=0.25)
    share = 1 - float(attack.lost(task, batch).double().mean())
    assert 0 < share < 1
    whole, parts, other = (AccuracyUnderPGD(attack) for _ in range(3))
    whole.update(task, batch)
    five, seven = cut(batch, 5, 7)
    parts.update(task, five)
    other.update(task, seven)
    parts.merge_state(other)
    assert float(whole.compute()) == float(parts.compute()) == pytest.approx(share)
    other.update(task, five)
    assert float(other.compute()) == pytest.approx(share)
    other.reset()
    other.update(task, five)
    assert float(other.compute()) == pytest.approx(
        1 - float(attack.lost(task, five).double().mean())
    )


class Judged(L.LightningModule):
    """Validates as the docstring of the metric says."""

    def __init__(self, task: Task, attack: EmbeddingPGD) -> None:
        super().__init__()
        self.task, self.robust = task, AccuracyUnderPGD(attack)

    def validation_step(self, batch: Batch) -> None:
        self.robust.update(self.task, batch)
        self.log("val/robust", self.robust)


@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("restarts", [1, 3])
def test_the_accuracy_is_logged_in_validation(inference_mode: bool, restarts: int):
    """Lightning validates in inference mode, in which nothing has a gradient."""
    task = classify(MeanPool(bend=True))
    batch = _labelled(task)
    attack = EmbeddingPGD(radius=0.5, step_size=0.25, restarts=restarts)
    module = Judged(task, attack)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=inference_mode,
    )
    loader: Any = Stream(cut(batch, 5, 7))
    random = torch.get_rng_state()
    with without_lightnings_own_warnings():
        (logged,) = trainer.validate(module, loader, verbose=False)
    assert torch.equal(torch.get_rng_state(), random)  # a training's random numbers stay its own
    stream = torch.Generator()
    lost = [attack.lost(task, part, 1.0, stream.manual_seed(0)) for part in cut(batch, 5, 7)]
    assert logged["val/robust"] == pytest.approx(1 - float(torch.cat(lost).float().mean()))


def test_tensors_of_inference_mode_are_attacked_like_others():
    task = classify(bert().float())
    attack = EmbeddingPGD(radius=1.0, step_size=0.3, steps=3)
    (batch,) = batches(1)
    with torch.inference_mode():
        made = {name: column.clone() for name, column in batch.items()}
        lost = attack.lost(task, made)
    assert same_lost(lost, attack.lost(task, batch))


def test_a_larger_ball_loses_no_fewer():
    task = classify(MeanPool())
    batch = _labelled(task)
    lost = [
        EmbeddingPGD(radius=r, step_size=r / 3).lost(task, batch) for r in (0.0, 0.2, 0.5, 1.0, 3.0)
    ]
    for less, more in pairwise(lost):
        assert not (less & ~more).any()
