"""A vocabulary: which of its tokens begin a word, and what words tokens make."""

from typing import TypeAlias

import torch
from tokenizers import decoders
from torch import Tensor
from transformers import BatchEncoding
from transformers import PreTrainedTokenizerBase as Tokenizer

MARKS = {
    "##": decoders.WordPiece(prefix="##", cleanup=False),  # of tokens that continue a word
    "\u0120": decoders.ByteLevel(),  # of tokens that begin one, here and below
    "\u2581": decoders.Metaspace(),
}

Pieces: TypeAlias = tuple[int, ...]


class Vocabulary:
    """How a tokenizer takes words apart, and which tokens make a word.

    Args:
        tokenizer: a fast one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__}: needs to be a fast tokenizer")
        ids: dict[str, int] = tokenizer.get_vocab()
        # The mark of many: RoBERTa has a token ## as well.
        count = {mark: sum(token.startswith(mark) for token in ids) for mark in MARKS}
        mark = max(count, key=lambda mark: count[mark])
        if not count[mark]:
            raise ValueError(f"{type(tokenizer).__name__}: none of {', '.join(MARKS)} marks words")
        self._tokenizer, self._continues, self._decoder = tokenizer, mark == "##", MARKS[mark]
        self._tokens = {number: token for token, number in ids.items()}
        self._begins = {n for n, t in self._tokens.items() if t.startswith(mark) != self._continues}

    def read(self, texts: list[tuple[str, ...]], max_length: int) -> BatchEncoding:
        """The texts' tokens, and the words they are of."""
        # Not every tokenizer puts the space itself that makes the mark.
        space = "" if self._continues else " "
        return self._tokenizer(
            [[space + word for word in words] for words in texts],
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
        )

    def odd(self, size: int) -> Tensor:
        """Outputs of a network that are special tokens, or none."""
        ordinary = self._tokens.keys() - set(self._tokenizer.all_special_ids)
        return torch.tensor(sorted(set(range(size)) - ordinary), dtype=torch.int64)

    def words(self, candidates: list[Pieces]) -> list[str]:
        """The words that these tokens make; none where the first of them continues a word."""
        begun = [pieces for pieces in candidates if pieces[0] in self._begins]
        words = [self._decoder.decode([self._tokens[n] for n in pieces]) for pieces in begun]
        # A lone space is no word, nor is half a character.
        return [word.strip() for word in words if word.strip() and "\ufffd" not in word]
