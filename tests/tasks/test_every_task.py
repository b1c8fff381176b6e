"""Every task is trained by every method that applies to it, and perturbed where it may be."""

from functools import partial
from typing import Any

import pytest
import torch
from tasks.subjects import SUBJECTS, batches
from testbed import FREE, METHODS, Method, Recorder, fit, recording, sgd

from lit_adv import fisher
from lit_adv.methods.yopo import YOPO
from lit_adv.tasks.multi_label import MultiLabel

YOPO_SIZES = {"rounds": 2, "inner_steps": 2, "step_size": 0.3, "radius": 0.5, "init_size": 0.4}
ALL: dict[str, Method] = {
    **METHODS,
    "free_at": FREE,
    "yopo": partial(recording(YOPO), form="gd", **YOPO_SIZES),
    "yopo_pmp": partial(recording(YOPO), form="pmp", **YOPO_SIZES),
}
WORDS_ONLY = {"fgm_table": "words", "tavat": "table of words", "infobert": "no words"}
SEVERAL_TEXTS = ("multiple_choice", "info_nce", "flat_nce")
DROPOUT = 0.1  # or rdrop would compare equals, and two views would be one


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_method_trains_every_task(name: str, method: str):
    subject = SUBJECTS[name]
    task, data = subject.build(DROPOUT), batches(name)
    if method in WORDS_ONLY and not subject.words:
        with pytest.raises(ValueError, match=f"images.* {WORDS_ONLY[method]}"):
            fit(ALL[method](task, sgd()), data)
        return
    if method == "infobert" and name in SEVERAL_TEXTS:
        with pytest.raises(ValueError, match="infobert: .* several texts"):
            fit(ALL[method](task, sgd()), data)
        return
    if method == "infobert" and name == "causal_lm":
        with pytest.raises(ValueError, match="infobert: .* at the first token does not depend"):
            fit(ALL[method](task, sgd()), data)
        return
    if method == "llr" and not task.separable:
        with pytest.raises(ValueError, match="LLR: .* compares the examples of a batch"):
            ALL[method](task, sgd())
        return
    before = {key: weight.detach().clone() for key, weight in task.named_parameters()}
    module = ALL[method](task, sgd(lr=0.01))
    run = fit(module, data)

    moved = [key for key, weight in task.named_parameters() if not weight.equal(before[key])]
    heads = {
        key for key in before if key.endswith(("head.weight", "head.1.weight", "classifier.weight"))
    }
    assert moved and heads <= set(moved)
    assert all(bool(weight.isfinite().all()) for weight in task.parameters())
    assert run.trainer.global_step == len(data)
    sizes = [delta.abs().amax().item() for delta in module.deltas]
    if sizes:  # some are there only to be differentiated by, and stay zero
        assert max(sizes) > 0 or method == "input_gradient_penalty"
    masks = [task.mask(batch) for batch in data]
    for delta in module.deltas:
        assert delta.shape[2] == task.width
        assert any(
            mask.shape == delta.shape[:2] and bool((delta[~mask] == 0).all()) for mask in masks
        )
    if not subject.words:
        _inside_the_range(module, data, probes=method != "vat")


def _inside_the_range(module: Recorder, data: Any, *, probes: bool) -> None:
    """Each perturbation with the image of one of the batches, which it belongs to."""
    pixels = [batch["pixel_values"].flatten(1).unsqueeze(1) for batch in data]
    for seen in module.seen:
        if seen.delta is None or not (seen.trains or probes):
            continue  # what VAT differentiates at is no perturbation, and may lie outside
        delta = seen.delta
        assert any(
            bool((x + delta >= -1e-12).all() & (x + delta <= 1 + 1e-12).all()) for x in pixels
        )


@pytest.mark.parametrize("name", SUBJECTS)
def test_padding_is_never_perturbed_and_has_no_part_in_the_loss(name: str):
    subject = SUBJECTS[name]
    if not subject.words:
        pytest.skip("images have no padding")
    task = subject.build(0.0).eval()
    (batch,) = batches(name, 1)
    mask = task.mask(batch)
    delta = torch.zeros(*mask.shape, task.width, dtype=torch.float64, requires_grad=True)
    losses = task.losses(task.answer(batch, delta), batch)
    (grad,) = torch.autograd.grad(losses.sum(), delta)
    assert losses.shape == (len(mask),)
    touched = grad.abs().sum(-1)
    assert bool((touched[~mask] == 0).all())
    assert bool((touched.sum(1) > 0).all())


@pytest.mark.parametrize("name", [name for name, s in SUBJECTS.items() if s.separable])
def test_an_examples_loss_divergence_and_gradient_are_its_own(name: str):
    """They do not depend on who else is in the batch."""
    task = SUBJECTS[name].build(0.0).eval()
    (batch,) = batches(name, 1)
    mask = task.mask(batch)
    noise = torch.randn(*mask.shape, task.width, generator=torch.Generator().manual_seed(2))
    delta = 0.1 * noise.double() * mask.unsqueeze(-1)
    clean, noisy = task(batch), task.answer(batch, delta)
    losses = task.losses(clean, batch)
    for i in range(len(losses)):
        alone = {key: value[i : i + 1] for key, value in batch.items()}
        mine, moved = task(alone), task.answer(alone, delta[i : i + 1])
        torch.testing.assert_close(task.losses(mine, alone)[0], losses[i])
        for compare in (task.divergence, task.towards):
            value = compare(clean, noisy, batch)[i]
            torch.testing.assert_close(compare(mine, moved, alone)[0], value)
            assert value > 0


@pytest.mark.parametrize("name", SUBJECTS)
def test_divergences_vanish_between_equals_and_have_the_gradient_they_should(name: str):
    """In float64, against finite differences; `towards` trains its first argument only."""
    task = SUBJECTS[name].build(0.0).eval()
    (batch,) = batches(name, 1)
    p = task(batch).detach()
    q = p + 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(
        task.divergence(p, p.clone(), batch), torch.zeros(len(p)).double(), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(task.divergence(p, q, batch), task.divergence(q, p, batch))
    p, q = p.requires_grad_(), q.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, q: task.divergence(p, q, batch), (p, q), fast_mode=True
    )
    assert torch.autograd.gradcheck(
        lambda p: task.towards(p, q.detach(), batch), (p,), fast_mode=True
    )
    grads = torch.autograd.grad(
        task.towards(p, q, batch).sum(), (p, q), allow_unused=True, materialize_grads=True
    )
    assert grads[0].abs().sum() > 0 and grads[1].abs().sum() == 0


@pytest.mark.parametrize("name", SUBJECTS)
def test_validation_gives_the_metrics_of_the_task(name: str):
    task = SUBJECTS[name].build(DROPOUT)
    run = fit(METHODS["finetune"](task, sgd()), batches(name), validation=batches(name, 2, seed=1))
    logged = {key for key in run.trainer.callback_metrics if key.startswith("val/")}
    assert logged == {"val/loss", *(f"val/{metric}" for metric in task.metrics())}
    assert task.monitor in logged
    assert all(bool(value.isfinite()) for value in run.trainer.callback_metrics.values())


@pytest.mark.parametrize("name", SUBJECTS)
def test_examples_are_scored_one_by_one_where_they_have_losses_of_their_own(name: str):
    """As mask=child_d does; also where a text has as many labels as tokens."""
    subject = SUBJECTS[name]
    task, data = subject.build(0.0), batches(name)
    if name == "multi_label":
        network: Any = task.network
        network.classifier = torch.nn.Linear(16, 7).double()
        network.num_labels = network.config.num_labels = 7
        task = MultiLabel(network, num_labels=7)
        data = [{**batch, "labels": torch.arange(28).view(4, 7) % 2} for batch in data]
    weights = {n: w for n, w in task.named_parameters() if "classifier" in n or "head" in n}
    weights = weights or dict(list(task.named_parameters())[-2:])
    if not subject.separable:
        with pytest.raises(ValueError, match="mask=child_d: an example of Contrastive"):
            fisher.diagonal(task, weights, data)
        return
    found = fisher.diagonal(task, weights, data)
    task.eval()
    for key, weight in weights.items():
        squares = []
        for batch in data:
            for loss in task.losses(task(batch), batch):
                (grad,) = torch.autograd.grad(loss, weight, retain_graph=True)
                squares.append(grad.square())
        torch.testing.assert_close(found[key], torch.stack(squares).mean(0))
