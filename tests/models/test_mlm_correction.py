"""Word vectors corrected for masking: the mean over what masking makes of a word."""

from typing import Any

import pytest
import torch
from testbed import close, same
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from lit_adv.data.reviews import Reviews
from lit_adv.models import tiny
from lit_adv.models.mlm_correction import correct, corrected

TABLE = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MASK = 3


def test_it_is_the_mean_over_what_masking_makes_of_a_word():
    """By drawing: 15 % are looked at; of these 80 % become the mask, 10 % any word."""
    stream = torch.Generator().manual_seed(0)
    count = 400_000
    for word in (5, 11):
        looked = torch.rand(count, generator=stream) < 0.15
        fate = torch.rand(count, generator=stream)
        ids = torch.full((count,), word)
        ids[looked & (fate < 0.8)] = MASK
        anything = looked & (fate >= 0.8) & (fate < 0.9)
        ids[anything] = torch.randint(12, (int(anything.sum()),), generator=stream)
        drawn = TABLE[ids].mean(0)
        torch.testing.assert_close(corrected(TABLE, MASK)[word], drawn, rtol=0, atol=5e-3)


def test_its_coefficients_are_the_article_s_and_add_up_to_one():
    expected = 0.865 * TABLE + 0.12 * TABLE[MASK] + 0.015 * TABLE.mean(0)
    close(corrected(TABLE, MASK), expected)
    alike = torch.ones(5, 3, dtype=torch.float64)
    close(corrected(alike, 0), alike)
    same(corrected(TABLE, MASK, selected=0.0), TABLE)


def test_words_that_are_never_masked_stay():
    found = corrected(TABLE, MASK, special=[0, MASK])
    same(found[[0, MASK]], TABLE[[0, MASK]])
    assert (found[1] != TABLE[1]).all()


def test_a_network_is_corrected_once_and_its_tied_head_keeps_the_table():
    tokenizer = tiny.train_tokenizer(Reviews(train_size=50).splits, 400, 64)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    network: Any = BertForMaskedLM(config)
    before = network.get_input_embeddings().weight.detach().clone()
    for _ in range(2):
        correct(network, tokenizer)
    mask = tokenizer.mask_token_id
    assert isinstance(mask, int)
    expected = corrected(before, mask, tokenizer.all_special_ids)
    same(network.get_input_embeddings().weight.detach(), expected)
    same(network.get_output_embeddings().weight.detach(), before)
    assert network.config.mlm_corrected


def test_a_network_that_knows_no_mask_is_refused():
    tokenizer = tiny.train_tokenizer(Reviews(train_size=50).splits, 400, 64)
    tokenizer.mask_token = None
    network = GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="^model.mlm_correction=true: the tokenizer has no mask"):
        correct(network, tokenizer)
