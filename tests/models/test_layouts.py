"""A perturbation of a token is that token's, whatever a network does to a batch on its way."""

from typing import Any

import pytest
import torch
import transformers as t
from models.families import BART, BERT, SIZES, T5, WIDTH
from testbed import fit, recording, sgd

from lit_adv import padding
from lit_adv.adoption.place import Place
from lit_adv.flood.individual import Individual
from lit_adv.methods.yopo import YOPO
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.multiple_choice import MultipleChoice
from lit_adv.tasks.task import Task
from lit_adv.tasks.token_classification import TokenClassification

QUIET: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LONG = BERT | QUIET | {"max_position_embeddings": 80}
XLNET = SIZES | {"d_model": WIDTH, "n_layer": 2, "n_head": 2, "d_inner": 24, "dropout": 0.0}
BLOCKS = {"block_size": 4, "num_random_blocks": 1, "attention_type": "block_sparse"}

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("Bert", "SequenceClassification", BERT | QUIET),
    "mpnet": ("MPNet", "SequenceClassification", LONG),
    "xlnet": ("XLNet", "SequenceClassification", XLNET),
    "longformer": ("Longformer", "SequenceClassification", LONG | {"attention_window": 8}),
    "bigbird": ("BigBird", "SequenceClassification", LONG | BLOCKS),
    "xlnet choices": ("XLNet", "MultipleChoice", XLNET | {"num_labels": 1}),
    "bert choices": ("Bert", "MultipleChoice", BERT | QUIET | {"num_labels": 1}),
    "t5 tokens": ("T5", "TokenClassification", T5 | {"dropout_rate": 0.0}),
    "t5": ("T5", "SequenceClassification", T5 | {"decoder_start_token_id": 0}),
    "bart": ("Bart", "SequenceClassification", BART),
}
TOKENS = {"bigbird": 61}


def subject(name: str) -> tuple[Task, dict[str, torch.Tensor]]:
    """A task without dropout, and a batch of as many texts as tokens, where that can be."""
    torch.manual_seed(0)
    family, head, options = NETWORKS[name]
    network: Any = getattr(t, f"{family}For{head}")(getattr(t, f"{family}Config")(**options))
    network = network.double()
    for weight in network.parameters():
        if weight.ndim > 1:  # as they come, a word hardly matters
            torch.nn.init.normal_(weight, std=0.3)
    tokens = TOKENS.get(name, 6)
    size, texts = 6, 2 if name.endswith("choices") else 1
    lengths = torch.tensor([tokens, 5, 3, 4, 6, 2]).repeat_interleave(texts).unsqueeze(1)
    left = padding.side(network) == "left"
    places = torch.arange(tokens)
    real = (places >= tokens - lengths) if left else places < lengths
    ids = torch.randint(5, 40, real.shape)
    ends = (tokens - 1 if left else lengths - 1) * torch.ones_like(lengths)
    ids.scatter_(1, ends, 2)  # where BART reads its answer
    ids = torch.where(real, ids, network.config.pad_token_id)
    labels = torch.arange(size) % (2 if texts > 1 else 3)
    batch = {
        "input_ids": ids,
        "attention_mask": real.long(),
        "special_tokens_mask": 1 - real.long(),
    }
    if texts > 1:
        batch = {key: value.view(size, texts, tokens) for key, value in batch.items()}
        return MultipleChoice(network, choices=2).eval(), {**batch, "labels": labels}
    if name.endswith("tokens"):
        names = ["O", "B-X", "I-X"]
        labels = torch.where(real, ids % 3, -100)
        return TokenClassification(network, label_names=names).eval(), {**batch, "labels": labels}
    return Classification(network, num_labels=3).eval(), {**batch, "labels": labels}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loss_depends_on_the_perturbation_of_its_own_tokens_alone(name: str):
    task, batch = subject(name)
    mask = task.mask(batch)
    for example in range(len(mask)):
        delta = torch.zeros(*mask.shape, task.width, dtype=torch.float64, requires_grad=True)
        losses = task.losses(task.answer(batch, delta), batch)
        (grad,) = torch.autograd.grad(losses[example], delta)
        size = grad.norm(dim=-1)
        assert (size[example][mask[example]] > 0).all(), example
        assert not size[example][~mask[example]].any(), example
        assert not size[torch.arange(len(mask)) != example].any(), example


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("t5", "bart")])
def test_a_perturbation_of_one_word_is_another_word(name: str):
    """The difference of two rows of the table, at one token, against the other token itself.

    (Decoders of classifiers read the words once more, which are perturbed in the encoder alone.)
    """
    task, batch = subject(name)
    ids = task.words(batch)
    mask = task.mask(batch)
    row = 3
    place = int(mask[row].nonzero()[-2])
    other = (ids[row, place] - 5 + 7) % 35 + 5
    changed = ids.clone()
    changed[row, place] = other
    table: Any = task.embeddings
    delta = torch.zeros(*mask.shape, task.width, dtype=torch.float64)
    with torch.no_grad():
        difference = table(other) - table(ids[row, place])
        delta[row, place] = difference
        found = task.answer(batch, delta)
        wanted = task.answer({**batch, "input_ids": changed.view_as(batch["input_ids"])})
        clean = task.answer(batch)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert (found - clean).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["bert", "xlnet", "longformer", "t5 tokens"])
def test_so_it_is_where_a_network_is_adopted(name: str):
    task, batch = subject(name)
    network, place = task.network, Place(task.network)
    fed = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    mask = place.mask(fed, lambda given: network(**given))
    assert torch.equal(mask, batch["attention_mask"].bool())
    asked = place.words([*fed.values()], lambda given: network(given[0], given[1]))
    assert torch.equal(asked[:, : mask.shape[1]], batch["input_ids"])
    delta = torch.zeros(*mask.shape, place.width, dtype=torch.float64, requires_grad=True)
    with place.perturbed(fed, delta, False) as given:
        logits = network(**given).logits[3]
    loss = (logits if logits.ndim == 1 else logits[mask[3]]).square().sum()
    (grad,) = torch.autograd.grad(loss, delta)
    size = grad.norm(dim=-1)
    assert (size[3][mask[3]] > 0).all()
    assert not size[3][~mask[3]].any() and not size[torch.arange(len(mask)) != 3].any()


@pytest.mark.parametrize("name", ["bert", "xlnet", "bert choices", "xlnet choices"])
@pytest.mark.parametrize("form", ["gd", "pmp"])
def test_yopos_adversary_does_not_see_a_flood_of_examples(name: str, form: str):
    """Whichever axis of a layer's answer has the examples."""
    options = {"rounds": 3, "inner_steps": 2, "step_size": 0.3, "radius": 0.9, "form": form}
    deltas, level = [], None
    for _ in range(2):
        task, batch = subject(name)
        module = recording(YOPO)(task.train(), sgd(lr=0.0), **options)
        if level is not None:  # a level that no training would be allowed, for these losses
            module.descent.flood = Individual(level)
        deltas.append(fit(module, [batch]).module.deltas)
        level = float(module.seen[1].losses.median())
    torch.testing.assert_close(deltas[1], deltas[0], rtol=1e-9, atol=1e-9)
