"""Losses of tasks against their definitions, written out."""

import math

import pytest
import torch
from tasks.subjects import SUBJECTS, TAGS, batches, config
from torch import Tensor
from torch.nn import functional as F
from transformers import BertForSequenceClassification, BertForTokenClassification

from lit_adv.functional.token_mean import token_mean
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.cross_entropy import CrossEntropy, balanced
from lit_adv.tasks.multi_label import MultiLabel
from lit_adv.tasks.token_classification import TokenClassification


def _close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def _logits(*shape: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=stream, dtype=torch.float64)


def test_weighted_and_smoothed_cross_entropy_is_its_formula_for_each_example():
    weights, smoothing = [0.5, 1.0, 2.0], 0.1
    logits, labels = _logits(6, 3), torch.tensor([0, 1, 2, 2, -100, 0])
    found = CrossEntropy(3, weights, smoothing)(logits, labels)
    assert found[4] == 0
    for row, label in enumerate(labels.tolist()):
        if label < 0:
            continue
        surprise = -logits[row].log_softmax(0)
        w = torch.tensor(weights, dtype=torch.float64)
        uniform = (w * surprise).sum() / 3
        _close(found[row], (1 - smoothing) * w[label] * surprise[label] + smoothing * uniform)


def test_balanced_weights_give_each_class_the_same_share_and_examples_a_mean_of_one():
    labels = [0] * 6 + [1] * 3 + [3]
    weights = balanced(labels, 4)
    shares = [sum(weights[y] for y in labels if y == c) for c in range(4)]
    assert shares[2] == weights[2] == 0
    assert [shares[c] for c in (0, 1, 3)] == pytest.approx([10 / 3] * 3)
    assert sum(weights[y] for y in labels) == pytest.approx(len(labels))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, math.nan]])
def test_weights_that_are_none_of_the_classes_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match=r"task\.class_weights=.*needs 2 numbers from 0 up"):
        CrossEntropy(2, weights)
    with pytest.raises(ValueError, match=r"task\.positive_weights=.*needs 2 numbers from 0 up"):
        network = BertForSequenceClassification(config(0.0))
        MultiLabel(network, num_labels=2, positive_weights=weights)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_smoothing_that_is_none_is_refused(share: float):
    network = BertForSequenceClassification(config(0.0))
    for task in (Classification, MultiLabel):
        with pytest.raises(ValueError, match=r"task\.label_smoothing"):
            task(network, num_labels=2, label_smoothing=share)


def test_checkpoints_do_not_hold_the_weights_of_classes():
    network = BertForSequenceClassification(config(0.0))
    plain, weighted = (
        Classification(network, num_labels=2, class_weights=w) for w in (None, [1.0, 2.0])
    )
    assert plain.state_dict().keys() == weighted.state_dict().keys()
    assert plain.chance_loss == math.log(2) and weighted.chance_loss is None


def test_several_labels_are_binary_cross_entropies_label_by_label():
    network = BertForSequenceClassification(config(0.0, num_labels=3))
    task = MultiLabel(network, num_labels=3, positive_weights=[1.0, 2.0, 3.0], label_smoothing=0.2)
    logits, labels = _logits(4, 3), torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    found = task.losses(logits, {"labels": labels})
    for row in range(4):
        parts = []
        for c in range(3):
            yes = logits[row, c].sigmoid()
            target = 0.8 * float(labels[row, c]) + 0.1
            parts.append(-(c + 1) * target * yes.log() - (1 - target) * (1 - yes).log())
        _close(found[row], torch.stack(parts).mean())


def test_logits_within_zero_and_one_are_not_taken_for_probabilities():
    """torchmetrics would, and count 0.3 as a no."""
    network = BertForSequenceClassification(config(0.0, num_labels=2))
    task = MultiLabel(network, num_labels=2)
    metrics = task.metrics()
    logits, batch = torch.full((4, 2), 0.3), {"labels": torch.ones(4, 2, dtype=torch.long)}
    metrics.update(*task.scored(logits, batch))
    assert metrics.compute()["exact_match"] == 1


def test_the_calibration_error_of_small_logits_is_that_of_their_probabilities():
    network = BertForSequenceClassification(config(0.0, num_labels=2))
    task = Classification(network, num_labels=2)
    metrics = task.metrics()
    logits = torch.tensor([[0.0, 1.0]] * 10)
    metrics.update(*task.scored(logits, {"labels": torch.tensor([1] * 7 + [0] * 3)}))
    error = metrics.compute()["calibration_error"].item()
    assert error == pytest.approx(abs(1 / (1 + math.exp(-1)) - 0.7), abs=1e-6)


def test_a_word_is_classified_by_its_own_answer_and_an_example_counts_once():
    task, (batch,) = (
        SUBJECTS["token_classification"].build(0.0).eval(),
        batches("token_classification", 1),
    )
    logits = task(batch)
    for row, labels in enumerate(batch["labels"]):
        values = [
            -logits[row, place].log_softmax(0)[label]
            for place, label in enumerate(labels.tolist())
            if label >= 0
        ]
        _close(task.losses(logits, batch)[row], torch.stack(values).mean())


def test_words_without_labels_neither_teach_nor_are_compared():
    """Also where the answers there are not finite."""
    network = BertForTokenClassification(config(0.0, num_labels=len(TAGS)))
    task = TokenClassification(network, label_names=TAGS)
    p, q = _logits(2, 3, 5), _logits(2, 3, 5, seed=1)
    batch = {"labels": torch.tensor([[1, -100, 2], [-100, -100, -100]])}
    before = task.losses(p, batch), task.divergence(p, q, batch), task.towards(p, q, batch)
    assert [float(value[1]) for value in before] == [0, 0, 0]
    p[0, 1], p[1] = torch.inf, torch.nan
    after = task.losses(p, batch), task.divergence(p, q, batch), task.towards(p, q, batch)
    for one, other in zip(before, after, strict=True):
        _close(one, other)


def test_where_a_batch_has_no_labels_all_real_tokens_are_compared():
    network = BertForTokenClassification(config(0.0, num_labels=len(TAGS)))
    task = TokenClassification(network, label_names=TAGS)
    p, q = _logits(1, 3, 5), _logits(1, 3, 5, seed=1)
    found = task.divergence(p, q, {"attention_mask": torch.tensor([[1, 1, 0]])})
    labelled = task.divergence(p, q, {"labels": torch.tensor([[0, 0, -100]])})
    _close(found, labelled)


def test_a_token_is_predicted_from_those_before_it():
    task, (batch,) = SUBJECTS["causal_lm"].build(0.0).eval(), batches("causal_lm", 1)
    answers = task.network(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).logits
    losses = task.losses(task(batch), batch)
    for row, labels in enumerate(batch["labels"].tolist()):
        values = [
            -answers[row, place - 1].log_softmax(0)[label]
            for place, label in enumerate(labels)
            if label >= 0
        ]
        _close(losses[row], torch.stack(values).mean())


def test_causal_losses_are_those_of_transformers_one_example_at_a_time():
    task, (batch,) = SUBJECTS["causal_lm"].build(0.0).eval(), batches("causal_lm", 1)
    losses = task.losses(task(batch), batch)
    for row in range(len(losses)):
        one = {
            name: batch[name][row : row + 1] for name in ("input_ids", "attention_mask", "labels")
        }
        theirs = task.network(**one).loss  # in float32
        torch.testing.assert_close(losses[row].float(), theirs.float())


def test_prompts_are_perturbed_and_their_words_not_learnt():
    task, (batch,) = SUBJECTS["causal_lm"].build(0.0).eval(), batches("causal_lm", 1)
    mask = task.mask(batch)
    delta = torch.zeros(*mask.shape, task.width, dtype=torch.float64, requires_grad=True)
    losses = task.losses(task.answer(batch, delta), batch)
    (grad,) = torch.autograd.grad(losses.sum(), delta)
    assert bool((grad[:, :2].abs().sum((1, 2)) > 0).all())
    everything = {**batch, "labels": batch["input_ids"]}
    assert bool((task.losses(task(batch), everything) != losses).all())
    second = torch.tensor([-100, 1, -100, -100, -100, -100, -100]).expand(4, -1)
    first = task.network(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).logits[:, 0]
    _close(task.losses(task(batch), {**batch, "labels": second}), -first.log_softmax(1)[:, 1])


def test_choices_are_perturbed_as_one_text_and_scored_each_by_itself():
    task, (batch,) = SUBJECTS["multiple_choice"].build(0.0).eval(), batches("multiple_choice", 1)
    mask = task.mask(batch)
    assert mask.shape == (4, 3 * 7)
    delta = torch.zeros(*mask.shape, task.width, dtype=torch.float64)
    delta[1, 7 + 2] = torch.linspace(-1, 1, task.width)  # second example, second choice
    moved = task.answer(batch, delta) != task(batch)
    assert moved.nonzero().tolist() == [[1, 1]]
    _close(
        task.losses(task(batch), batch),
        F.cross_entropy(task(batch), batch["labels"], reduction="none"),
    )


def test_token_mean_is_zero_where_nothing_counts_and_lets_no_nan_through():
    values = torch.tensor([[1.0, torch.nan], [torch.nan, torch.inf]], requires_grad=True)
    found = token_mean(values, torch.tensor([[True, False], [False, False]]))
    assert found.tolist() == [1, 0]
    (grad,) = torch.autograd.grad(found.sum(), values)
    assert grad.tolist() == [[1, 0], [0, 0]]


def test_nothing_is_predicted_from_padding_at_the_left():
    task, (batch,) = SUBJECTS["causal_lm"].build(0.0).eval(), batches("causal_lm", 1)
    real = batch["attention_mask"].bool()
    left = {name: torch.zeros_like(value) for name, value in batch.items()}
    for row, keep in enumerate(real):
        for name, value in batch.items():
            left[name][row, len(keep) - int(keep.sum()) :] = value[row, keep]
    padding = ~left["attention_mask"].bool()
    left["labels"] = left["input_ids"].masked_fill(padding, -100)
    mask = task.mask(left)
    delta = torch.zeros(*mask.shape, task.width, dtype=torch.float64, requires_grad=True)
    answers = task.answer(left, delta)
    losses = task.losses(answers, left)
    (grad,) = torch.autograd.grad(losses.sum(), delta, retain_graph=True)
    assert bool((grad[padding] == 0).all())
    apart = task.divergence(answers, answers.detach() + torch.randn_like(answers), left)
    (grad,) = torch.autograd.grad(apart.sum(), delta)
    assert bool((grad[padding] == 0).all()) and bool((grad[~padding] != 0).any())


def test_perplexity_is_that_of_tokens_also_where_one_is_all_but_impossible():
    from lit_adv.tasks.causal_lm import Perplexity

    metric = Perplexity()
    logits = torch.tensor([[[0.0, 0.0], [200.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])
    metric.update(logits, torch.tensor([[0, 1], [1, -100]]))
    assert metric.compute().item() == pytest.approx(math.exp((2 * math.log(2) + 200) / 3), rel=1e-5)


def test_the_cosine_of_near_vectors_is_not_rounded_away():
    from lit_adv.functional.divergence import cosine

    u = torch.nn.functional.normalize(_logits(1, 16), dim=1)
    v = u + 1e-5 * _logits(1, 16, seed=1)
    exact, found = cosine(u, v).item(), cosine(u.float(), v.float()).item()
    assert exact == pytest.approx(1 - F.cosine_similarity(u, v).item(), rel=1e-4)
    assert found == pytest.approx(exact, rel=0.02) and cosine(u.float(), u.float()).item() == 0
