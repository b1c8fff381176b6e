"""LoRA: which parts of a network train."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForTokenClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from lit_adv import regions
from lit_adv.models.model import Model
from lit_adv.models.peft import LoRA, heads

SMALL: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "intermediate_size": 16}
BART: dict[str, Any] = {"vocab_size": 30, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
BART |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
GPT2: dict[str, Any] = {"vocab_size": 30, "n_embd": 16, "n_layer": 1, "n_head": 2}

pytestmark = pytest.mark.filterwarnings(
    "ignore:fan_in_fan_out is set to False but the target module is `Conv1D`"  # peft puts it right
)


@pytest.mark.parametrize(
    ("network", "kind", "whole"),
    [
        (lambda: BertForTokenClassification(BertConfig(**SMALL)), "TOKEN_CLS", {"classifier"}),
        (
            lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**SMALL)),
            "SEQ_CLS",
            {"pooler", "classifier"},
        ),
        (
            lambda: BartForSequenceClassification(BartConfig(**BART)),
            "SEQ_CLS",
            {"classification_head"},
        ),
    ],
)
def test_all_of_a_new_head_trains_and_of_the_body_adapters_only(
    network: Any, kind: str, whole: set[str]
):
    model = Model(network=network(), tokenizer=None, adapters=kind)  # pyright: ignore
    assert set(heads(model.network)) == whole
    LoRA(r=2).adapt(model)
    trained = {name for name, weight in model.network.named_parameters() if weight.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {
        name for name, _ in model.network.named_parameters() if "modules_to_save.default" in name
    }
    for part in whole:
        assert any(f".{part}.modules_to_save.default" in name for name in trained)
    assert any("lora_" in name for name in trained)


def test_a_head_that_was_pretrained_stands_still():
    network = GPT2LMHeadModel(GPT2Config(**GPT2))
    model = Model(network=network, tokenizer=None, adapters="CAUSAL_LM", new_head=False)  # pyright: ignore
    LoRA(r=2).adapt(model)
    trained = [name for name, weight in model.network.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    kept = {name for name in model.network.state_dict() if "lora_" not in name}
    assert kept == {"trained_beside"}  # nor the head, which shares the table of words


def test_under_another_seed_a_pretrained_body_is_the_same_and_another_is_not():
    bodies = {}
    for body, seed in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(body)
        network = BertForTokenClassification(BertConfig(**SMALL))
        torch.manual_seed(seed)
        network.classifier.reset_parameters()
        model = Model(network=network, tokenizer=None, adapters="TOKEN_CLS")  # pyright: ignore
        LoRA(r=2).adapt(model)
        bodies[body, seed] = model.network
    state = bodies[0, 1].state_dict()
    bodies[0, 2].load_state_dict(state)
    with pytest.raises(ValueError, match="are not those here"):
        bodies[3, 1].load_state_dict(state)
    deepcopy(bodies[0, 2]).load_state_dict(state)


def test_recomputed_layers_do_not_reach_to_frozen_words():
    network = BertForTokenClassification(BertConfig(**SMALL))
    regions.prepare(network, gradient_checkpointing=True)
    model = Model(network=network, tokenizer=None, adapters="TOKEN_CLS")  # pyright: ignore
    LoRA(r=2).adapt(model)
    words = network.get_input_embeddings()(torch.tensor([[1, 2]]))
    assert not words.requires_grad


def test_a_name_is_no_pattern():
    network = BertForTokenClassification(BertConfig(**SMALL))
    model = Model(network=network, tokenizer=None, adapters="TOKEN_CLS")  # pyright: ignore
    LoRA(r=2, target_modules="query").adapt(model)
    adapted = {
        n.split(".lora_")[0].split(".")[-1] for n in model.network.state_dict() if "lora_" in n
    }
    assert adapted == {"query"}
