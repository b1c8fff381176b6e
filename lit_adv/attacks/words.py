"""Words: a text as its words and what stands between them, so that words can be exchanged."""

import re
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from unicodedata import category

# An ideograph is a word; so is a run of other letters and digits, with apostrophes and hyphens
# inside. Accents and vowel signs that are characters of their own belong to the letter before them.
IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if category(c).startswith("M"))
LETTERS = rf"(?:[^\W_{IDEOGRAPH}][{MARKS}]*)+"
WORD = re.compile(rf"[{IDEOGRAPH}]|{LETTERS}(?:['\u2019*@_-]{LETTERS})*")

Segment = tuple[str, bool]


@dataclass(frozen=True, kw_only=True)
class Words:
    """A text that can be taken apart and put together again.

    Args:
        words: the text's words, in order.
        gaps: what stands before each word, and behind the last: one more than words.
        first: the first text of a pair, which is never changed; None = single text.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]
    first: str | None = None

    @classmethod
    def of(cls, text: str, first: str | None = None) -> "Words":
        """Take a text apart.

        >>> Words.of("A don't-miss film, really!").words
        ('A', "don't-miss", 'film', 'really')
        >>> Words.of("好看 ok").words
        ('好', '看', 'ok')
        """
        found = list(WORD.finditer(text))
        ends = [0, *(match.end() for match in found)]
        starts = [*(match.start() for match in found), len(text)]
        gaps = tuple(text[end:start] for end, start in zip(ends, starts, strict=True))
        return cls(words=tuple(match[0] for match in found), gaps=gaps, first=first)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def text(self) -> str:
        """The words and what stands between them."""
        return "".join(chain.from_iterable(zip_longest(self.gaps, self.words, fillvalue="")))

    @property
    def item(self) -> str | tuple[str, str]:
        """What a victim is asked about: the text, or both texts of a pair."""
        return self.text if self.first is None else (self.first, self.text)

    def exchange(self, place: int, word: str) -> "Words":
        """With another word at this place."""
        words = (*self.words[:place], word, *self.words[place + 1 :])
        return replace(self, words=words)

    def without(self, place: int) -> "Words":
        """Without the word at this place, nor the space beside it.

        >>> Words.of("a good, film").without(1).text
        'a , film'
        """
        before, behind = self.gaps[place : place + 2]
        if behind.startswith(" ") and (place == 0 or before.endswith(" ")):
            behind = behind[1:]
        elif not behind and place == len(self) - 1:
            before = before.removesuffix(" ")
        return replace(
            self,
            words=self.words[:place] + self.words[place + 1 :],
            gaps=(*self.gaps[:place], before + behind, *self.gaps[place + 2 :]),
        )

    def part(self, start: int, stop: int) -> "Words":
        """The words from one place up to another, with what stands between them.

        >>> Words.of("Good. A bad film!").part(1, 4).text
        'A bad film!'
        """
        gaps = ("", *self.gaps[start + 1 : stop], self.gaps[stop].rstrip())
        return replace(self, words=self.words[start:stop], gaps=gaps[: stop - start + 1])

    def window(self, place: int, size: int) -> str:
        """`size` words around a place, or at the text's end if that is nearer.

        >>> Words.of("a b c d e f g").window(5, 3)
        'e f g'
        """
        start = max(0, min(place - (size - 1) // 2, len(self) - size))
        return " ".join(self.words[start : start + size])

    def changed(self, original: "Words") -> list[int]:
        """Places of the words that are not the original's."""
        pairs = zip(self.words, original.words, strict=True)
        return [place for place, (new, old) in enumerate(pairs) if new != old]

    def segments(self, other: "Words") -> list[Segment]:
        """The text in pieces: what is common with the other text, and (True) what is not.

        >>> old, new = Words.of("a good film"), Words.of("a good film").exchange(1, "fine")
        >>> new.segments(old)
        [('a ', False), ('fine', True), (' film', False)]
        """
        odd = set(self.changed(other))
        pieces: list[Segment] = []
        common = self.gaps[0]
        for place, word in enumerate(self.words):
            if place in odd:
                pieces += [(common, False), (word, True)]
                common = ""
            else:
                common += word
            common += self.gaps[place + 1]
        return [piece for piece in [*pieces, (common, False)] if piece[0]]
