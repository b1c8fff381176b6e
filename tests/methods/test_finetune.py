"""Plain fine-tuning, and what all methods inherit from it."""

import itertools

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from testbed import (
    FINETUNE,
    METHODS,
    MeanPool,
    Stream,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    same,
    sgd,
    without_lightnings_own_warnings,
)
from torch import nn

every_method = pytest.mark.parametrize("name", METHODS)


def test_the_gradient_is_that_of_the_mean_loss():
    network, (batch,) = bert(), batches()
    expected = derivative(loss(network, batch).mean(), network)
    close(gradient(FINETUNE, network, [batch]), expected)


def test_the_clean_input_is_never_perturbed():
    run = fit(FINETUNE(classify(bert()), sgd()), batches(3))
    assert len(run.module.seen) == 3
    assert not run.module.deltas


def test_the_loss_of_a_linear_model_falls_in_every_step():
    run = fit(FINETUNE(classify(MeanPool()), sgd(lr=0.1)), batches(), epochs=10)
    losses = [log["train/loss"] for log in run.logs]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))


@every_method
def test_evaluation_is_that_of_the_clean_network_without_dropout(name: str):
    network = bert(dropout=0.5)
    held_out = [*batches(2, size=20, seed=1), *batches(1, size=7, seed=2)]
    module = METHODS[name](classify(network), sgd(lr=0.0))
    run = fit(module, batches(), validation=held_out)

    network.eval()
    with torch.no_grad():
        losses = torch.cat([loss(network, batch) for batch in held_out])
        guesses = torch.cat([network(b["input_ids"], b["attention_mask"])[0] for b in held_out])
    network.train()
    labels, found = torch.cat([batch["labels"] for batch in held_out]), guesses.argmax(-1)
    assert found.any() and not found.all()
    logged = {name: float(value) for name, value in run.trainer.callback_metrics.items()}
    assert logged["val/loss"] == pytest.approx(float(losses.mean()))
    assert logged["val/accuracy"] == pytest.approx(accuracy_score(labels, found))
    assert logged["val/macro_f1"] == pytest.approx(f1_score(labels, found, average="macro"))
    assert logged["val/mcc"] == pytest.approx(matthews_corrcoef(labels, found))


def test_a_network_that_always_answers_the_same_has_no_correlation_with_the_labels():
    network, (held_out,) = MeanPool(), batches(size=12)
    nn.init.zeros_(network.head.weight)
    held_out["labels"] = torch.tensor([1] + 11 * [0])
    run = fit(FINETUNE(classify(network), sgd(lr=0.0)), batches(), validation=[held_out])
    assert float(run.trainer.callback_metrics["val/mcc"]) == 0


@every_method
def test_evaluation_between_micro_batches_leaves_the_training_as_it_is(name: str):
    descents = [sgd(accumulate_grad_batches=2) for _ in range(2)]
    without, between = (METHODS[name](classify(bert()), descent) for descent in descents)
    one = fit(without, batches(4))
    other = fit(between, batches(4), validation=batches(2, seed=1), val_check_interval=1)
    same(one.gradients, other.gradients)
    same(one.weights, other.weights)


def test_predictions_are_the_logits():
    network, data = bert(dropout=0.5), batches(2)
    run = fit(FINETUNE(classify(network), sgd(lr=0.0)), data)
    with without_lightnings_own_warnings():
        predicted = run.trainer.predict(run.module, Stream(data))
    assert predicted is not None
    network.eval()
    for logits, batch in zip(predicted, data, strict=True):
        close(logits, network(batch["input_ids"], batch["attention_mask"]).logits)
