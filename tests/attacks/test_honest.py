"""Figures that would be wrong in silence: victims that are refused, and texts that survive."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from subject import build, session
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2ForSequenceClassification

from lit_adv.attacks import source
from lit_adv.attacks.deepwordbug import DeepWordBug
from lit_adv.attacks.encoded import Reader
from lit_adv.attacks.progress import Progress
from lit_adv.attacks.resources import describe
from lit_adv.attacks.victim import Victim


@pytest.mark.parametrize("mark", ["\u0085", "\u2028", "\u2029", "\x0b", "\x1c", "\n", "\r\n"])
def test_a_text_with_any_line_separator_is_kept(mark: str, tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    for index in range(2):
        progress.add({"index": index, "text": f"a{mark}b"})
    assert [record["text"] for record in progress.finish([0, 1])] == [f"a{mark}b"] * 2
    again = Progress(tmp_path).records()
    assert [again[index]["text"] for index in range(2)] == [f"a{mark}b"] * 2


def test_a_network_whose_head_was_never_trained_is_no_victim(tmp_path: Path) -> None:
    model, _ = build()
    network: Any = model.network
    network.bert.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"it lacks classifier\.\w+: no classifier was trained"):
        source.load(tmp_path)


def test_classes_in_another_order_are_refused() -> None:
    model, data = build()
    config: Any = model.network.config
    names = data.splits.label_names
    assert names is not None
    config.id2label = dict(enumerate(reversed([name.upper() for name in names])))
    with pytest.raises(ValueError, match=r"the victim's classes are .* set data.label_names=\["):
        session(model, data)
    config.id2label = dict(enumerate(name.upper() for name in names))
    session(model, data)
    config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    session(model, data)


def test_a_victim_that_answers_nan_is_not_robust() -> None:
    model, data = build()
    network: Any = model.network
    network.bert.embeddings.LayerNorm.weight.data.fill_(torch.nan)
    each = session(model, data)
    recipe = DeepWordBug()
    with pytest.raises(ValueError, match="the victim answers NaN"):
        list(each.attack(each.examples(each.rows()), recipe, each.kit(recipe)))


def test_a_victim_of_several_files_is_known_by_its_weights(tmp_path: Path) -> None:
    model, _ = build()
    network: Any = model.network
    network.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    before = describe("victim", source.weights(tmp_path))
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "attack.part0.jsonl").write_text(json.dumps({"index": 0}))
    assert describe("victim", source.weights(tmp_path)) == before
    shard = next(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert describe("victim", source.weights(tmp_path)) != before


def test_other_rows_are_other_data() -> None:
    _, data = build()
    before = data.splits.digest
    data.splits.test.labels[0] = 1 - data.splits.test.labels[0]
    assert data.splits.digest != before


def test_a_decoder_answers_a_text_without_tokens() -> None:
    """As the text of one word is, whose importance is asked for by leaving it out."""
    model, _ = build()
    tokenizer: Any = model.tokenizer
    tokenizer._tokenizer.post_processor = None  # as decoders', which add nothing
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 2}
    config = GPT2Config(vocab_size=len(tokenizer), pad_token_id=0, **sizes)
    torch.manual_seed(0)
    victim = Victim(
        Reader(GPT2ForSequenceClassification(config), tokenizer, max_length=20, precision="32")
    )
    alone, beside = (
        victim.answer(victim.keys([""])),
        victim.answer(victim.keys(["", "a good film"])),
    )
    torch.testing.assert_close(torch.tensor(alone[0]), torch.tensor(beside[0]))


@pytest.mark.parametrize("kind", [0, 2])
def test_a_victim_is_told_the_kinds_of_single_texts_tokens_too(kind: int) -> None:
    """XLNet's tokenizer has a kind of its own for the token that answers."""
    model, _ = build()
    tokenizer: Any = model.tokenizer
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A:0 [CLS]:{kind}", special_tokens=[("[CLS]", tokenizer.cls_token_id)]
    )
    reader = Reader(model.network, tokenizer, max_length=20, precision="32")
    (read,) = reader.encode(["a good film"])
    assert read.tokens == tuple(tokenizer("a good film")["input_ids"])
    assert read.types == ((*[0] * (len(read.tokens) - 1), kind) if kind else None)
