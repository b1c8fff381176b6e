"""Positions: which a network gives to tokens, and that texts too long are refused beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from commandline import SMALL, refusal
from transformers import AutoModel, PretrainedConfig

from lit_adv import positions
from lit_adv.attacks.encoded import Reader
from lit_adv.data.reviews import Reviews
from lit_adv.models import tiny

SIZES: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 40},
    **{"num_attention_heads": 2, "initializer_range": 0.3, "pad_token_id": 3},
    **{"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 20},
}
NETWORKS: dict[str, tuple[Callable[..., PretrainedConfig], dict[str, Any], bool]] = {
    # With a table of positions?
    "bert": (transformers.BertConfig, {}, True),
    "electra": (transformers.ElectraConfig, {"embedding_size": 16}, True),
    "gpt2": (transformers.GPT2Config, {"n_embd": 16, "n_layer": 2, "n_head": 2}, True),
    "opt": (transformers.OPTConfig, {"ffn_dim": 16, "word_embed_proj_dim": 16}, True),
    "roberta": (transformers.RobertaConfig, {}, True),
    "camembert": (transformers.CamembertConfig, {}, True),
    "xlm-roberta": (transformers.XLMRobertaConfig, {}, True),
    "mpnet": (transformers.MPNetConfig, {"pad_token_id": 1}, True),
    "longformer": (transformers.LongformerConfig, {"attention_window": 4}, True),
    "ibert": (transformers.IBertConfig, {}, True),
    "data2vec": (transformers.Data2VecTextConfig, {}, True),
    "deberta": (transformers.DebertaV2Config, {"position_biased_input": False}, False),
    "llama": (transformers.LlamaConfig, {}, False),
    "modernbert": (transformers.ModernBertConfig, {"global_rope_theta": 1e4}, False),
}


def network(name: str) -> Any:
    torch.manual_seed(0)
    config, options, _ = NETWORKS[name]
    made = config(**{**SIZES, **options})
    return AutoModel.from_config(made).eval()


def answer(network: Any, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        mask = torch.ones_like(tokens)
        return network(input_ids=tokens, attention_mask=mask, **options).last_hidden_state


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "deberta"])
def test_told_these_positions_a_network_answers_as_it_does_untold(name: str):
    subject, tokens = network(name), torch.arange(5, 13).view(1, 8)
    untold = answer(subject, tokens)
    places = positions.first(subject) + torch.arange(8).view(1, 8)
    torch.testing.assert_close(answer(subject, tokens, position_ids=places), untold)
    if NETWORKS[name][2]:
        other = answer(subject, tokens, position_ids=places + 1)
        assert (other - untold).abs().max() > 1e-2


@pytest.mark.parametrize("name", NETWORKS)
def test_texts_are_refused_just_where_a_network_fails(name: str):
    subject, most = network(name), positions.room(network(name))
    assert most is not None
    positions.check(subject, most, 99)
    fitting = torch.full((1, most), 7)
    assert answer(subject, fitting).isfinite().all()
    too_long = torch.full((1, most + 1), 7)
    before = torch.get_rng_state()
    if NETWORKS[name][2]:
        with pytest.raises(
            ValueError, match=f"^data.max_length=99: .* {most + 1} tokens.* at most {most}$"
        ):
            positions.check(subject, most + 1, 99)
        with pytest.raises((IndexError, RuntimeError)):
            answer(subject, too_long)
    else:
        positions.check(subject, most + 1, 99)
        assert answer(subject, too_long).isfinite().all()
    assert (torch.get_rng_state() == before).all()


def test_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    for name, rows in (("train", 6), ("validation", 2), ("test", 2)):
        lines = [f"{'good ' * 69}good,{row % 2}" for row in range(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]))
    options = [*SMALL[3:], "data=local", f"data.path={tmp_path}"]
    said = refusal(monkeypatch, capsys, tmp_path / "run", *options)
    assert said == (
        "data.max_length=128: the longest text has 72 tokens, and BertForSequenceClassification "
        "positions for 64; set it to at most 64"
    )


@pytest.mark.parametrize("name", ["bert", "mpnet", "longformer"])
def test_under_attack_texts_are_cut_to_what_a_network_takes(name: str):
    subject = network(name)
    tokenizer = tiny.train_tokenizer(Reviews(train_size=50).splits, 400, 10**6)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(subject.config.pad_token_id)
    subject.resize_token_embeddings(len(tokenizer))
    reader = Reader(subject, tokenizer, max_length=1000, precision="32")
    texts = reader.encode(["a long film " * 30])
    assert [len(text.tokens) for text in texts] == [positions.room(subject)]
    (row,) = reader.read(texts, lambda batch: subject(**batch).last_hidden_state[:, 0])
    assert np.isfinite(row).all()
