"""Words left out of training batches: which, how often, and that the others keep their places."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import SMALL, refusal, train
from testbed import MeanPool, batches, bert, close, same
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from lit_adv.data.drop_token import DropToken
from lit_adv.data.reviews import Reviews
from lit_adv.functional.drop_token import drop
from lit_adv.models import tiny


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_what_stays_is_in_its_order_with_its_place_and_no_special_token_goes():
    (batch,) = batches(size=64, tokens=9)
    real, special = batch["attention_mask"].bool(), batch["special_tokens_mask"].bool()
    shorter = drop(batch, 0.4, padding=0, generator=seeded(0))
    assert shorter["input_ids"].shape[1] <= 9 and shorter["labels"] is batch["labels"]
    for row in range(64):
        stays = shorter["attention_mask"][row].bool()
        places = shorter["position_ids"][row][stays]
        assert (places.diff() > 0).all()
        same(shorter["input_ids"][row][stays], batch["input_ids"][row][places])
        kept = set(places.tolist())
        assert set((real & special)[row].nonzero().flatten().tolist()) <= kept
        assert kept <= set(real[row].nonzero().flatten().tolist())
        assert not shorter["input_ids"][row][~stays].any()
        assert shorter["special_tokens_mask"][row][~stays].all()
        # No place of padding comes before one of a word.
        assert (stays.long().diff() <= 0).all()
    assert shorter["attention_mask"].sum(1).max() == shorter["attention_mask"].shape[1]


def test_each_word_goes_with_its_chance():
    (batch,) = batches(size=4000, tokens=9)
    free = batch["attention_mask"].bool() & ~batch["special_tokens_mask"].bool()
    shorter = drop(batch, 0.3, generator=seeded(0))
    left = batch["attention_mask"].sum() - shorter["attention_mask"].sum()
    # Texts without special tokens that would lose all keep one: none here.
    assert float(left / free.sum()) == pytest.approx(0.3, abs=0.01)
    assert drop(batch, 0.0).keys() == batch.keys()


def test_a_text_never_loses_all_its_words():
    batch = {
        "input_ids": torch.full((500, 2), 7),
        "attention_mask": torch.tensor([[0, 1]]).expand(500, 2),
        "special_tokens_mask": torch.zeros(500, 2, dtype=torch.long),
    }
    shorter = drop(batch, 0.9, generator=seeded(0))
    assert (shorter["attention_mask"].sum(1) == 1).all() and (shorter["position_ids"] == 1).all()


def test_a_network_answers_as_if_the_words_were_masked_out():
    """The same words at the same places, and attention that does not look at the others."""
    network, (batch,) = bert().eval(), batches(size=8, tokens=9)
    shorter = drop(batch, 0.4, generator=seeded(0))
    masked = torch.zeros_like(batch["attention_mask"])
    stays = shorter["attention_mask"].bool()
    rows = torch.arange(8).unsqueeze(1).expand_as(stays)
    masked[rows[stays], shorter["position_ids"][stays]] = 1
    names = ("input_ids", "attention_mask", "position_ids")
    answer = network(**{name: shorter[name] for name in names}).logits
    close(answer, network(input_ids=batch["input_ids"], attention_mask=masked).logits)


def test_it_depends_on_where_the_training_stands_alone():
    (batch,) = batches(size=8, tokens=9)
    drops = DropToken(share=0.4, padding=0, offset=2, seed=0)
    same(drops(batch, 1, 2, 0), drops(batch, 1, 2, 0))
    for other in ((0, 2, 0), (1, 3, 0), (1, 2, 1)):
        ids = drops(batch, *other)["input_ids"], drops(batch, 1, 2, 0)["input_ids"]
        assert ids[0].shape != ids[1].shape or (ids[0] != ids[1]).any()
    assert (drops(batch, 1, 2, 0)["position_ids"][:, 0] == 2).all()


def test_a_network_that_cannot_be_told_places_is_refused():
    tokenizer = tiny.train_tokenizer(Reviews(train_size=50).splits, 400, 64)
    network = MeanPool()
    with pytest.raises(ValueError, match="^model.drop_token=0.3: MeanPool cannot be told the pl"):
        DropToken.of(0.3, network, tokenizer, 0)
    assert DropToken.of(0.0, network, tokenizer, 0) is None


def test_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """That a resumed training leaves out the same is shown with all that is resumed."""
    ends = []
    for share in ("0.0", "0.3"):
        options = [*SMALL, "method=fgm", f"model.drop_token={share}"]
        train(monkeypatch, tmp_path / share, *options)
        last = tmp_path / share / "checkpoints" / "last.ckpt"
        ends.append(torch.load(last, weights_only=True)["state_dict"])
    assert any((ends[0][name] != ends[1][name]).any() for name in ends[0])
    said = refusal(monkeypatch, capsys, tmp_path / "no", *SMALL, "model.drop_token=1.0")
    assert said == "model.drop_token=1.0: needs to lie in [0, 1)"


def test_a_network_that_takes_distances_from_the_batch_is_refused():
    """DeBERTa has an argument for places, which says nothing of how far two words lie apart."""
    tokenizer = tiny.train_tokenizer(Reviews(train_size=50).splits, 400, 64)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    options: dict[str, Any] = {**sizes, "intermediate_size": 16, "pos_att_type": ["c2p", "p2c"]}
    config = DebertaV2Config(**options, relative_attention=True, position_biased_input=False)
    network = DebertaV2ForSequenceClassification(config).eval()
    words, gaps = torch.arange(5, 11).view(1, 6), torch.tensor([[0, 1, 2, 6, 7, 8]])
    same(network(words, position_ids=gaps).logits, network(words).logits)
    with pytest.raises(ValueError, match="^model.drop_token=0.3: DebertaV2For.* cannot be told"):
        DropToken.of(0.3, network, tokenizer, 0)
