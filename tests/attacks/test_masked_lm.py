"""Candidates are those of BERT-Attack, one text at a time; the small model is trained once."""

from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lit_adv.attacks import masked_lm, small_masked_lm
from lit_adv.attacks.batching import filled, padded
from lit_adv.attacks.masked_lm import MaskedLM, Propose

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "a", "film", "was", "good", "bad", "fine", "dull", "play", "run", "and", "not"]
PIECES = ["un", "re", "##ing", "##er", "##s", "##ly", "##able", "##ful", "##a", "##b"]
TOKENS = [*SPECIAL, *WORDS, "very", *PIECES]
LONG = "un" + "ingersably" * 3

TEXTS = [
    ("the", "film", "was", "unable", "and", "not", "good"),
    ("a", "dully", "film"),
    ("very", "badly", "rea", "playings", "runsable", "bad"),
    ("good",),
    ("fine", "ungooda", "xyz"),
]


def finish(tokenizer: Tokenizer, length: int) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=length,
        **{f"{name}_token": token for name, token in names},
    )


def word_pieces(length: int = 64) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return finish(tokenizer, length)


def bert(**settings: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        **{
            "vocab_size": 30,  # two more than there are tokens, as in padded vocabularies
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "initializer_range": 0.5,
            **settings,
        }
    )
    return BertForMaskedLM(config).double().eval()


def model(**settings: int) -> MaskedLM:
    return MaskedLM(bert(), word_pieces(), **settings)


def brute(network: BertForMaskedLM, item: Propose, max_length: int = 64) -> list[list[str]]:
    """BERT-Attack for one text: `item`'s answer, in plain steps."""
    tokenizer = word_pieces()
    pieces = [[TOKENS.index(t) for t in tokenizer.tokenize(word)] for word in item.words]
    owner = [place for place, some in enumerate(pieces) for _ in some][: max_length - 2]
    ids = [2, *[piece for some in pieces for piece in some][: max_length - 2], 3]
    with torch.no_grad():
        logits = network(torch.tensor([ids])).logits[0, 1:-1]
    ordinary = range(len(SPECIAL), len(TOKENS))
    answer = []
    for place in item.places:
        rows = [logits[at].tolist() for at in range(len(owner)) if owner[at] == place]
        best = [sorted(ordinary, key=lambda t, row=row: -row[t])[: item.k] for row in rows]
        chosen: list[list[int]] = []
        if len(rows) == 1:
            least = -np.inf if item.min_score is None else item.min_score
            chosen = [[token] for token in best[0] if rows[0][token] >= least]
        elif rows and item.sub_words:
            combinations = [list(c) for c in islice(product(*[some[:4] for some in best[:12]]), 24)]
            chosen = sorted(combinations, key=lambda c: perplexity(network, c))
        joined = [join(tokens) for tokens in chosen]
        answer.append([word for word in joined if not word.startswith("##")])
    return answer


def join(tokens: Sequence[int]) -> str:
    return " ".join(TOKENS[token] for token in tokens).replace(" ##", "")


def perplexity(network: BertForMaskedLM, tokens: Sequence[int]) -> float:
    with torch.no_grad():
        logits = network(torch.tensor([list(tokens)])).logits[0]
    chances = [logits[at].softmax(0)[token] for at, token in enumerate(tokens)]
    return float(torch.stack(chances).prod() ** (-1 / len(tokens)))


ITEMS = [
    *[Propose(words, tuple(range(len(words))), 6) for words in TEXTS],
    Propose(("a", LONG, "good", "film"), (1, 3), 4),
    Propose(TEXTS[2], (3,), 2),
    Propose(TEXTS[2], (4, 0, 4), 40),
    Propose(TEXTS[0], (0, 1, 3), 9, min_score=0.5),
    Propose(TEXTS[0], (0, 3), 9, sub_words=False),
]


def test_answers_are_those_of_one_text_at_a_time():
    answers = model().answer(ITEMS)
    assert answers == [brute(bert(), item) for item in ITEMS]
    assert sum(map(len, answers[2])) > 20


@pytest.mark.parametrize("tokens", [1, 20, 50])
def test_answers_do_not_depend_on_batches_nor_on_what_else_is_asked(tokens: int):
    together = model().answer(ITEMS)
    other = model(batch_tokens=tokens)
    assert other.answer(ITEMS[::-1])[::-1] == together
    assert [other.answer([item])[0] for item in ITEMS] == together


def test_equal_keys_are_equal_items():
    assert model().keys(ITEMS) == ITEMS
    assert len(set(model().keys([*ITEMS, *ITEMS]))) == len(ITEMS)


def test_combinations_are_the_first_24_by_their_perplexity():
    word = "runsable"  # run ##s ##able
    item = Propose(("the", word), (1,), 48)
    network, tokenizer = bert(), word_pieces()
    ids = tokenizer(["the runsable"], return_tensors="pt")["input_ids"]
    assert ids.shape == (1, 6)
    logits = network(ids).logits[0, 2:5]
    logits[:, [0, 1, 2, 3, 4, 28, 29]] = -torch.inf
    some = list(product(*logits.topk(4).indices.tolist()))[:24]
    # The first piece's second token comes in with the 17th: the 4 x 4 of the others come first.
    assert {pieces[0] for pieces in some} == set(logits[0].topk(2).indices.tolist())
    ordered = sorted(some, key=lambda pieces: perplexity(network, pieces))
    words = [join(pieces) for pieces in ordered]
    assert model().answer([item]) == [[[w for w in words if not w.startswith("##")]]]


def test_of_a_long_word_twelve_pieces_are_combined():
    network, seen = bert(), []
    network.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    MaskedLM(network, word_pieces()).answer([Propose((LONG, "film"), (0,), 9)])
    assert len(word_pieces().tokenize(LONG)) > 12
    assert seen[1:] == [(24, 12)]


def test_neither_special_tokens_nor_continuing_pieces_are_candidates():
    network = bert()
    with torch.no_grad():  # the network would like to say these above all
        network.cls.predictions.bias[:5] = 1e3
        network.cls.predictions.bias[28:] = 1e3
    answers = MaskedLM(network, word_pieces()).answer(
        [Propose(words, tuple(range(len(words))), 100) for words in TEXTS]
    )
    words = {word for places in answers for some in places for word in some}
    assert not any("[" in word or word.startswith("#") for word in words)
    assert set(answers[0][0]) == {*WORDS, "very", "un", "re"}


def test_beyond_the_longest_text_there_are_no_candidates():
    for length in (3, 5, 9):
        for item in ITEMS:
            assert model(max_length=length).answer([item]) == [brute(bert(), item, length)]
    assert model(max_length=4).answer([Propose(TEXTS[0], (2, 4), 5)]) == [[[], []]]


def test_nothing_is_asked_of_the_network_for_nothing():
    assert model().answer([]) == []
    assert model().answer([Propose((), (), 4), Propose(("film",), (), 4)]) == [[], []]
    assert model().answer([Propose((" ", "film"), (0,), 4)]) == [[[]]]


def byte_pairs(add_prefix_space: bool) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("\u0120", "a"), ("\u0120", "b"), ("\u0120a", "b")]
    tokens = [*SPECIAL, *letters, *["".join(pair) for pair in merges], "##"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return finish(tokenizer, 64)


def roberta(tokenizer: PreTrainedTokenizerFast) -> RobertaForMaskedLM:
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        pad_token_id=0,
    )
    return RobertaForMaskedLM(config).double()


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_byte_pairs_begin_words_with_their_mark(add_prefix_space: bool):
    tokenizer = byte_pairs(add_prefix_space)
    model = MaskedLM(roberta(tokenizer), tokenizer)
    one, several = model.answer([Propose(("b", "ab", "a\u00e9"), (0, 1, 2), 300)])[0][1:]
    assert set(one) == {"a", "b", "ab"}  # and not the lone mark
    assert several == [word for word in several if word and "\ufffd" not in word]


def sentence_piece() -> PreTrainedTokenizerFast:
    tokens = [*SPECIAL, "\u2581", "\u2581a", "\u2581b", "a", "b", "c"]
    tokenizer = Tokenizer(models.Unigram([(token, -1.0) for token in tokens], unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return finish(tokenizer, 64)


def test_sentence_pieces_begin_words_with_their_mark():
    tokenizer = sentence_piece()
    model = MaskedLM(bert(vocab_size=len(tokenizer)), tokenizer)
    one, two = model.answer([Propose(("a", "bc"), (0, 1), 20)])[0]
    assert set(one) == {"a", "b"}
    assert two and all("\u2581" not in word and word[0] != " " for word in two)


def test_two_tokens_are_too_few():
    with pytest.raises(ValueError, match="max_length=2"):
        model(max_length=2)


def test_a_vocabulary_without_marks_is_refused():
    tokenizer = Tokenizer(models.WordLevel({token: n for n, token in enumerate(SPECIAL)}))
    with pytest.raises(ValueError, match="marks words"):
        MaskedLM(bert(), finish(tokenizer, 64))


def test_batches_are_filled_longest_first():
    draw = np.random.default_rng(0)
    for count, tokens in ((0, 5), (1, 1), (50, 1), (50, 30), (200, 64), (200, 10**6)):
        lengths = draw.integers(0, 40, count).tolist()
        batches = filled(lengths, tokens)
        flat = [index for batch in batches for index in batch]
        assert sorted(flat) == list(range(count))
        assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
        for batch, after in zip(batches, [*batches[1:], None], strict=False):
            longest = max(lengths[batch[0]], 1)
            assert len(batch) == 1 or len(batch) * longest <= tokens
            assert after is None or (len(batch) + 1) * longest > tokens  # no room for one more


@pytest.mark.parametrize("left", [False, True])
def test_rows_are_padded_on_one_side(left: bool):
    rows = [[5, 6, 7], [], [8]]
    fill = [[9] * (3 - len(row)) for row in rows]
    whole = [f + r if left else r + f for r, f in zip(rows, fill, strict=True)]
    table = padded(rows, 9, left)
    assert table.dtype == torch.int64 and table.tolist() == whole
    assert padded([], 0).shape == (0, 0)


REVIEWS = ["a good film", "the film was bad", "a dull play", "the play was fine and good"] * 3
SMALL: dict[str, Any] = {"steps": 3, "width": 16, "layers": 1, "heads": 2, "vocabulary": 300}


def train(folder: Path, texts: list[str] = REVIEWS, **settings: Any) -> MaskedLM:
    state = torch.get_rng_state()
    found = small_masked_lm.train(texts, folder=str(folder), **{**SMALL, **settings})
    assert torch.equal(torch.get_rng_state(), state)  # PyTorch's random numbers are left alone
    return found


def same(one: MaskedLM, two: MaskedLM) -> bool:
    first, second = one.network.state_dict(), two.network.state_dict()
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_same_texts_and_settings_give_the_same_network(tmp_path: Path):
    torch.manual_seed(1)
    first = train(tmp_path / "one")
    torch.manual_seed(2)
    assert same(first, train(tmp_path / "two"))
    assert not same(first, train(tmp_path / "two", seed=1))
    assert not same(first, train(tmp_path / "two", steps=4))
    assert not same(first, train(tmp_path / "two", [*REVIEWS[1:], "another film"]))
    assert len(list((tmp_path / "two").iterdir())) == 4


def test_the_second_time_it_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIT_ADV_CACHE", str(tmp_path))
    first = small_masked_lm.train(REVIEWS, **SMALL)
    assert [path.suffix for path in tmp_path.iterdir()] == [""]

    monkeypatch.delattr(small_masked_lm, "_fit")
    second = small_masked_lm.train(REVIEWS, **SMALL)
    assert same(first, second)
    item = Propose(("a", "good", "film"), (0, 1, 2), 20)
    assert second.answer([item]) == first.answer([item])
    assert not second.network.training


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: object, folder: Path) -> None:
        folder.mkdir(parents=True)
        raise OSError("No space left on device")

    monkeypatch.setattr(BertForMaskedLM, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path)
    assert not list(tmp_path.iterdir())


def test_who_is_slower_keeps_what_the_quicker_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fit = small_masked_lm._fit

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(small_masked_lm, "_fit", fit)
        train(tmp_path)
        fit(*arguments)

    monkeypatch.setattr(small_masked_lm, "_fit", overtaken)
    slow = train(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert same(slow, train(tmp_path))


def test_training_makes_it_guess_what_is_masked(tmp_path: Path):
    def loss(steps: int) -> float:
        found = train(tmp_path, steps=steps, width=32, learning_rate=1e-2)
        rows = padded(found.tokenizer(REVIEWS)["input_ids"], 0)
        seen, chosen = small_masked_lm.mask(rows, 300, torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = found.network(seen, attention_mask=(rows != 0).long()).logits
        return float(F.cross_entropy(logits[chosen], rows[chosen]))

    assert loss(100) < 0.5 * loss(1)


def test_of_the_chosen_tokens_most_are_masked_some_exchanged_some_kept():
    tokens = torch.randint(4, 1000, (200, 500), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = 1, 0
    seen, chosen = small_masked_lm.mask(tokens, 1000, torch.Generator().manual_seed(1))
    assert not chosen[:, [0, -1]].any() and torch.equal(seen[~chosen], tokens[~chosen])
    assert float(chosen[:, 1:-1].float().mean()) == pytest.approx(0.15, abs=0.005)
    masked, kept = seen[chosen] == 3, seen[chosen] == tokens[chosen]
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.01)
    assert float(kept.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert seen[chosen][~masked].min() >= 4


def test_there_is_nothing_to_train_on_without_texts(tmp_path: Path):
    with pytest.raises(ValueError, match="needs texts"):
        train(tmp_path, [])


def test_what_cannot_be_loaded_says_where_it_was_asked_for(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"attack\.resources\.masked_lm=.*/none: cannot be loaded: "
    ):
        masked_lm.load(str(tmp_path / "none"))

    # A network for something else would get a head of random weights.
    config = BertConfig(
        vocab_size=28,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(tmp_path)
    word_pieces().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no masked LM"):
        masked_lm.load(str(tmp_path))


def test_what_was_saved_is_loaded_in_single_precision(tmp_path: Path):
    bert().save_pretrained(tmp_path)
    word_pieces().save_pretrained(tmp_path)
    found = masked_lm.load(str(tmp_path), max_length=4)
    assert found.network.dtype == torch.float32 and not found.network.training
    assert found.answer(ITEMS[:1]) == [brute(bert(), ITEMS[0], 4)]
