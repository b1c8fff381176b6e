"""Padding at either side: what a network answers to a text does not depend on its batch."""

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from lit_adv import positions
from lit_adv.attacks.encoded import Reader
from lit_adv.attacks.victim import Victim
from lit_adv.data.drop_token import DropToken
from lit_adv.data.reviews import Reviews
from lit_adv.data.splits import Split
from lit_adv.data.tokenised import Collate, Tokenised
from lit_adv.models import tiny
from lit_adv.tasks.classification import Classification

TEXTS = ["the plot was good", "bad", "the long , long film felt rather tedious"]
SIZES: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16},
    **{"num_attention_heads": 2, "max_position_embeddings": 40, "initializer_range": 0.3},
}
NETWORKS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "gpt2": (transformers.GPT2Config, {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "bert": (transformers.BertConfig, {}),
    "roberta": (transformers.RobertaConfig, {}),
    "llama": (transformers.LlamaConfig, {}),
    "opt": (transformers.OPTConfig, {"ffn_dim": 16, "word_embed_proj_dim": 16}),
    "deberta": (transformers.DebertaV2Config, {}),
    "distilbert": (transformers.DistilBertConfig, {"dim": 16, "n_heads": 2, "hidden_dim": 16}),
}


def tokenizer(side: str) -> Any:
    splits = Reviews(train_size=50, validation_size=1, test_size=1).splits
    made = tiny.train_tokenizer(splits, 400, 64)
    made.padding_side = side
    return made


def network(name: str, words: Any) -> Any:
    torch.manual_seed(0)
    config, options = NETWORKS[name]
    options = {**SIZES, **options, "pad_token_id": words.pad_token_id}
    special = {"bos_token_id": None, "eos_token_id": None, "num_labels": 3}
    made = config(vocab_size=len(words), **options, **special)
    return AutoModelForSequenceClassification.from_config(made).double().eval()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_is_answered_in_a_batch_as_alone(name: str, side: str):
    words = tokenizer(side)
    model = network(name, words)
    task = Classification(model, num_labels=3).eval()
    rows = Tokenised.of(Split(texts=TEXTS, labels=[1, 0, 2]), words, max_length=64)
    collate = Collate(words, positions.first(model))
    together = task(collate(rows[[0, 1, 2]]))
    alone = torch.cat([task(Collate(words)(rows[[n]])) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert alone.std(0).min() > 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_victim_answers_a_text_in_a_batch_as_alone(name: str, side: str):
    words = tokenizer(side)
    victim = Victim(Reader(network(name, words).float(), words, max_length=64, precision="32"))
    keys = victim.keys(TEXTS)
    together = torch.tensor(victim.answer(keys))
    alone = torch.cat([torch.tensor(victim.answer([key])) for key in keys])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_what_is_left_of_a_text_keeps_the_numbers_that_it_had():
    words = tokenizer("left")
    model = network("gpt2", words)
    rows = Tokenised.of(Split(texts=TEXTS, labels=[1, 0, 2]), words, max_length=64)
    batch = Collate(words, positions.first(model))(rows[[0, 1, 2]])
    drops = DropToken.of(0.5, model, words, seed=0)
    assert drops is not None
    shorter = drops(batch, epoch=0, number=0, rank=0)
    assert shorter["attention_mask"].sum() < batch["attention_mask"].sum()
    for row in range(3):
        tokens = rows[[row]]["input_ids"]
        left = shorter["attention_mask"][row].bool()
        numbers = shorter["position_ids"][row][left]
        assert shorter["input_ids"][row][left].tolist() == tokens[numbers].tolist()
