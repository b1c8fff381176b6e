"""Padding: what a network answers to a text does not depend on its batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PretrainedConfig

from lit_adv import padding
from lit_adv.attacks.encoded import Reader
from lit_adv.attacks.victim import Victim
from lit_adv.data.reviews import Reviews
from lit_adv.data.splits import Split
from lit_adv.data.tokenised import Collate, Tokenised
from lit_adv.models import pretrained, tiny
from lit_adv.tasks.classification import Classification

TEXTS = ["the plot was good", "bad", "the long , long film felt rather tedious"]
SIZES: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16},
    **{"num_attention_heads": 2, "initializer_range": 0.3},
    **{"bos_token_id": None, "eos_token_id": None, "num_labels": 3},
}
NETWORKS: dict[str, tuple[Callable[..., PretrainedConfig], dict[str, Any]]] = {
    "gpt2": (transformers.GPT2Config, {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "llama": (transformers.LlamaConfig, {}),
    "opt": (transformers.OPTConfig, {"ffn_dim": 16, "word_embed_proj_dim": 16}),
    "bert": (transformers.BertConfig, {}),
    "roberta": (transformers.RobertaConfig, {}),
    "deberta": (transformers.DebertaV2Config, {}),
    "distilbert": (transformers.DistilBertConfig, {"dim": 16, "n_heads": 2, "hidden_dim": 16}),
    "xlnet": (transformers.XLNetConfig, {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 16}),
}


def subject(name: str, side: str) -> tuple[Any, Any]:
    """A network with large random weights, and a tokenizer that pads at a side."""
    tokenizer = tiny.train_tokenizer(
        Reviews(train_size=50, validation_size=1, test_size=1).splits, 400, 64
    )
    tokenizer.padding_side = side
    torch.manual_seed(0)
    config, options = NETWORKS[name]
    sizes = {**SIZES, **options, "pad_token_id": tokenizer.pad_token_id}
    network = AutoModelForSequenceClassification.from_config(
        config(vocab_size=len(tokenizer), **sizes)
    )
    return network.double(), tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_is_answered_in_a_batch_as_alone(name: str, side: str):
    network, tokenizer = subject(name, side)
    task = Classification(network, num_labels=3).eval()
    rows = Tokenised.of(Split(texts=TEXTS, labels=[1, 0, 2]), tokenizer, max_length=64)
    collate = Collate(tokenizer, padding.side(network))
    together = task(collate(rows[[0, 1, 2]]))
    alone = torch.cat([task(collate(rows[[n]])) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert alone.std(0).min() > 1e-3


@pytest.mark.parametrize("name", ["llama", "bert", "xlnet"])
def test_what_is_loaded_agrees_with_its_tokenizer_and_so_does_what_is_exported(
    name: str, tmp_path: Path
):
    """A tokenizer was left for generation, and another token is the padding than the network's."""
    network, tokenizer = subject(name, "left")
    network.config.pad_token_id = 3
    network.float().save_pretrained(tmp_path / "saved")
    tokenizer.init_kwargs["padding_side"] = "left"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").padding_side == "left"
    data = Reviews(train_size=50, validation_size=1, test_size=1)
    model = pretrained.build(data.splits, name=str(tmp_path / "saved"))
    data.adapt(model)
    assert data._collate is not None
    task = model.task(data.splits).eval()
    rows = data._sets["train"]
    together = task(data._collate(rows[[0, 1, 2, 3]]))
    alone = torch.cat([task(data._collate(rows[[n]])) for n in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    model.write(tmp_path / "export", model.network.state_dict())
    texts = data.splits.train.texts[:4]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export").eval()
    words = AutoTokenizer.from_pretrained(tmp_path / "export")
    batches = [texts, *([text] for text in texts)]
    answers = [loaded(**words(each, padding=True, return_tensors="pt")).logits for each in batches]
    torch.testing.assert_close(answers[0], torch.cat(answers[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "xlnet"])
def test_a_victim_answers_a_text_in_a_batch_as_alone(name: str):
    network, tokenizer = subject(name, "left")
    network.config.pad_token_id = 3
    victim = Victim(Reader(network.float(), tokenizer, max_length=64, precision="32"))
    keys = victim.keys(TEXTS)
    for together, key in zip(victim.answer(keys), keys, strict=True):
        (alone,) = victim.answer([key])
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
