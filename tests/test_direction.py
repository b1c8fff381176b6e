"""Direction: encoders see the words behind a word, decoders do not, and what needs it says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from models.families import BART, BERT, DEBERTA, DECODER, SIZES, T5, WIDTH

from lit_adv.data.reviews import Reviews
from lit_adv.direction import sees_ahead
from lit_adv.kinds.contrastive import Contrastive as Kind
from lit_adv.models import pretrained, tiny
from lit_adv.tasks.contrastive import Contrastive

GPT2 = SIZES | {"n_embd": WIDTH, "n_layer": 2, "n_head": 2}
NETWORKS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "bert": ("Bert", BERT, True),
    "roberta": ("Roberta", BERT, True),
    "deberta": ("DebertaV2", DEBERTA, True),
    "distilbert": ("DistilBert", SIZES | {"dim": WIDTH, "n_heads": 2, "hidden_dim": 24}, True),
    "modernbert": ("ModernBert", BERT | {"cls_token_id": 1, "sep_token_id": 2}, True),
    "xlnet": ("XLNet", SIZES | {"d_model": WIDTH, "n_layer": 2, "n_head": 2, "d_inner": 24}, True),
    "t5": ("T5", T5, True),
    "bart": ("Bart", BART, True),
    "gpt2": ("GPT2", GPT2, False),
    "llama": ("Llama", DECODER, False),
    "opt": ("OPT", BERT | {"ffn_dim": 24, "word_embed_proj_dim": WIDTH}, False),
    "bert as decoder": ("Bert", BERT | {"is_decoder": True}, False),
}


def network(name: str) -> Any:
    family, options, _ = NETWORKS[name]
    torch.manual_seed(0)
    return getattr(t, f"{family}Model")(getattr(t, f"{family}Config")(**options))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_found(name: str):
    subject = network(name).train()
    assert sees_ahead(subject) == NETWORKS[name][2]
    assert all(module.training for module in subject.modules())


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_sentences_are_not_embedded_by_a_token_that_knows_nothing_of_them(name: str):
    with pytest.raises(ValueError, match="^task.pooling=first: .* set task.pooling=mean$"):
        Contrastive(network(name))
    Contrastive(network(name), pooling="mean")


def test_an_encoder_decoder_is_refused_where_its_decoder_has_no_words(tmp_path: Path):
    data = Reviews(train_size=50, validation_size=1, test_size=1)
    data.kind = Kind()
    network("t5").save_pretrained(tmp_path)
    tiny.train_tokenizer(data.splits, 400, 64).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has a decoder, whose words task=contrastive does not"):
        pretrained.build(data.splits, name=str(tmp_path))
