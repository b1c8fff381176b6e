"""Words that a masked language model proposes: BERT-Attack, Li et al. 2020, arXiv:2004.09984.

After the authors' code (LinyangLee/BERT-Attack at 8a93610, bertattack.py), for many texts at once.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from lit_adv.attacks.batching import filled, padded
from lit_adv.attacks.encoded import longest
from lit_adv.attacks.vocabulary import Pieces, Vocabulary
from lit_adv.models.loading import loading
from lit_adv.ranges import whole

PIECES, TOKENS, COMBINATIONS = 12, 4, 24
"""Of a word of several pieces: how many are exchanged, for how many tokens each, and how many
combinations of these are looked at, the last piece's tokens changing fastest."""

Likeliest: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Logits and tokens, the largest logit first, both [pieces, k]."""


@dataclass(frozen=True)
class Propose:
    """Asks for words that could stand at some places of a text.

    Args:
        words: the whole text.
        places: of the words to be exchanged.
        k: tokens that are proposed for each piece.
        min_score: least logit of a candidate for a word of one piece; None = any (0 in the authors'
            code).
        sub_words: exchange words of several pieces too.
    """

    words: tuple[str, ...]
    places: tuple[int, ...]
    k: int
    min_score: float | None = None
    sub_words: bool = True


class MaskedLM:
    """Answers each `Propose` with the candidates for each of its places, the best first.

    The network reads the text as it is, nothing masked, and proposes its k likeliest tokens for
    every piece. They are the candidates for a word of one piece. For a word of several pieces
    t_1 ... t_n they are combinations of each piece's likeliest tokens, by their perplexity
    exp(mean_i -log p(t_i | t)), which the network gives them with no text around them.

    No candidate has a special token, nor begins with a piece that continues a word. The word itself
    may be among them, and so may two words in the place of one. A word beyond `max_length` has
    none; one that is cut there has those for the pieces that are left. Answers do not depend on
    what else is asked, up to the rounding of batches of other shapes.

    Args:
        network: any of `AutoModelForMaskedLM`; it is set to evaluate.
        tokenizer: a fast one, of word pieces (BERT), byte pairs (RoBERTa) or SentencePiece.
        max_length: longest text, in tokens; the tokenizer may allow less.
        batch_tokens: most tokens of a batch, with padding. Logits take as many times the size of
            the vocabulary.

    Raises:
        ValueError: less than three tokens (two are special), a slow tokenizer, or one that marks no
            beginnings of words.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        max_length: int = 512,
        batch_tokens: int = 4096,
    ) -> None:
        self.network, self.tokenizer = network.eval(), tokenizer
        self._max_length = longest(network, tokenizer, whole(3, "max_length", max_length))
        self._batch_tokens = whole(1, "batch_tokens", batch_tokens)
        self._vocabulary = Vocabulary(tokenizer)
        self._odd = self._vocabulary.odd(network.config.vocab_size)
        # Padding is masked: where there is no token for it, any will do.
        self._pad = int(getattr(tokenizer, "pad_token_id", None) or 0)

    def keys(self, items: Sequence[Propose]) -> list[Propose]:
        """The items: all that they say matters."""
        return list(items)

    @torch.inference_mode()
    def answer(self, keys: Sequence[Propose]) -> list[list[list[str]]]:
        """The candidates for each place of each key."""
        texts = list(dict.fromkeys(key.words for key in keys if key.places))
        k = max((key.k for key in keys), default=0)
        likeliest = dict(zip(texts, self._read(texts, k), strict=True))
        slots = [(key, place) for key in keys for place in key.places]
        drawn = [_draw(key, likeliest[key.words].get(place)) for key, place in slots]

        several: set[Pieces] = {each for one in drawn for each in one if len(each) > 1}
        loss: dict[Pieces, float] = dict(zip(several, self._losses(list(several)), strict=True))
        # Tokens for a word of one piece have no loss, and stay in the order of their logits.
        ranked = [sorted(one, key=lambda pieces: loss.get(pieces, 0.0)) for one in drawn]
        words = iter([self._vocabulary.words(one) for one in ranked])
        return [[next(words) for _ in key.places] for key in keys]

    def _read(self, texts: list[tuple[str, ...]], k: int) -> list[dict[int, Likeliest]]:
        """For each text the likeliest tokens of every piece, by the place of the word."""
        if not texts:
            return []
        read = self._vocabulary.read(texts, self._max_length)
        found: list[dict[int, Likeliest]] = [{} for _ in texts]
        odd = self._odd.to(self.network.device)
        for batch, logits, _, _ in self._batches(read["input_ids"]):
            logits[..., odd] = -torch.inf
            scores, tokens = logits.topk(min(k, logits.shape[-1] - len(odd)))
            scores, tokens = scores.float().cpu().numpy(), tokens.cpu().numpy()
            for row, text in enumerate(batch):
                pieces: defaultdict[int, list[int]] = defaultdict(list)
                for at, place in enumerate(read.word_ids(text)):
                    if place is not None:
                        pieces[place].append(at)
                found[text] = {p: (scores[row, at], tokens[row, at]) for p, at in pieces.items()}
        return found

    def _losses(self, words: list[Pieces]) -> list[float]:
        """Mean of each word's -log p(t_i | t), in nats: the logarithm of its perplexity."""
        found = torch.zeros(len(words), dtype=torch.float64)
        for batch, logits, ids, real in self._batches(words):
            losses = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
            mean = (losses.view_as(ids) * real).sum(1) / real.sum(1)
            found[batch] = mean.double().cpu()
        return found.tolist()

    def _batches(
        self, rows: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
        """Indices of rows, their logits [rows, pieces, vocabulary], tokens, and which are real."""
        device = self.network.device
        for batch in filled([len(row) for row in rows], self._batch_tokens):
            some = [rows[index] for index in batch]
            ids = padded(some, self._pad).to(device)
            real = padded([[1] * len(row) for row in some], 0).to(device)
            yield batch, self.network(input_ids=ids, attention_mask=real).logits, ids, real


def _draw(item: Propose, likeliest: Likeliest | None) -> list[Pieces]:
    """What to put in the place of a word: a token, or combinations of them."""
    if likeliest is None:
        return []
    scores, tokens = likeliest[0][:, : item.k], likeliest[1][:, : item.k]
    if len(tokens) == 1:
        enough = scores[0] >= (-np.inf if item.min_score is None else item.min_score)
        return [(token,) for token in tokens[0, enough].tolist()]
    choices = tokens[:PIECES, :TOKENS].tolist() if item.sub_words else [[]]
    return list(islice(product(*choices), COMBINATIONS))


def load(
    name: str,
    *,
    device: torch.device | str = "cpu",
    max_length: int = 512,
    batch_tokens: int = 4096,
) -> MaskedLM:
    """Whatever `AutoModelForMaskedLM` loads, from safetensors only, in float32.

    Args:
        name: folder, or name on the hub (which is asked only if the files are not cached).
        device: of the network.
        max_length: longest text, in tokens.
        batch_tokens: most tokens of a batch, with padding.

    Raises:
        ValueError: the model or its tokenizer cannot be loaded, or are not of this kind.
    """
    with loading(f"attack.resources.masked_lm={name}: cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(name)
        network, report = AutoModelForMaskedLM.from_pretrained(
            name, use_safetensors=True, dtype="float32", output_loading_info=True
        )
        if report["missing_keys"]:
            raise ValueError(f"it lacks {min(report['missing_keys'])}: it is no masked LM")
        return MaskedLM(
            network.to(device), tokenizer, max_length=max_length, batch_tokens=batch_tokens
        )
