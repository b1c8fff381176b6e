"""`model.head_init=closed_form`: the head that the training set suggests, before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import SMALL, train
from testbed import (
    FINETUNE,
    Answer,
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

from lit_adv.functional.discriminant import Discriminant
from lit_adv.head import SHRINKAGE, Head


def expected(network: Any, data: list[Any]) -> tuple[Tensor, Tensor]:
    """By the network's own parts."""
    found = Discriminant(2, 16)
    network.eval()
    with torch.no_grad():
        for batch in data:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            found.update(network.bert(**inputs).pooler_output, batch["labels"])
    return found.solve(SHRINKAGE)


def test_the_head_is_that_of_the_features_before_the_first_step():
    data = batches(5, size=6)
    task = classify(bert(dropout=0.3), head_init="closed_form")
    fit(FINETUNE(task, sgd(lr=0.0)), data, epochs=2)
    weight, bias = expected(bert(dropout=0.3), data)
    network: Any = task.network
    close(network.classifier.weight.detach(), weight)
    close(network.classifier.bias.detach(), bias)


def test_the_pass_draws_from_no_stream_and_leaves_no_gradient():
    data, ends = batches(3), []
    for init in ("random", "closed_form"):
        task = classify(bert(dropout=0.3), head_init=init)
        run = fit(FINETUNE(task, sgd()), data, epochs=1)
        drawn = torch.rand(3)
        ends.append((run.gradients[0].keys(), drawn))
    assert ends[0][0] == ends[1][0]
    same(ends[0][1], ends[1][1])


def test_a_network_that_answers_otherwise_is_refused():
    class Twice(MeanPool):
        def forward(
            self,
            input_ids: Tensor | None = None,
            attention_mask: Tensor | None = None,
            inputs_embeds: Tensor | None = None,
        ) -> Answer:
            answer = super().forward(input_ids, attention_mask, inputs_embeds)
            return answer._replace(logits=2 * answer.logits)

    with pytest.raises(ValueError, match="^model.head_init=closed_form: the logits are not the"):
        Head.of(classify(Twice())).features(batches(1)[0])
    bare = MeanPool()
    bare.head = nn.Linear(4, 2, bias=False).double()
    with pytest.raises(ValueError, match="^model.head_init=closed_form: MeanPool has no linear"):
        Head.of(classify(bare))
    with pytest.raises(ValueError, match="^model.head_init=lda: choose one of random, closed_form"):
        classify(bert(), head_init="lda")


def test_a_resumed_training_does_not_begin_anew(tmp_path: Path):
    def made() -> Recorder:
        return FINETUNE(classify(bert(), head_init="closed_form"), sgd(lr=0.5))

    data, whole, rest = batches(3), made(), made()
    fit(whole, data, epochs=2)
    last = tmp_path / "half.ckpt"
    fit(made(), data).trainer.save_checkpoint(last)
    fit(rest, data, epochs=2, resume=str(last))
    same(rest.state_dict(), whole.state_dict())


def test_from_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Without a step it is a probe of the features; labels that are numbers have no classes."""
    options = [*SMALL, "trainer.max_epochs=1", "optimizer.lr=0"]
    results = [
        train(monkeypatch, tmp_path / init, *options, f"model.head_init={init}")
        for init in ("random", "closed_form")
    ]
    assert results[1]["val"]["loss"] != results[0]["val"]["loss"]
