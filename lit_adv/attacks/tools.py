"""Tools: what an attack may use beside the victim's answers."""

from dataclasses import dataclass
from typing import Protocol

from lit_adv.attacks.words import Words


class Near(Protocol):
    """Words near a word."""

    @property
    def similarity_known(self) -> bool: ...

    def near(self, word: str, k: int, min_cosine: float) -> list[str]: ...

    def cosine(self, a: str, b: str) -> float | None: ...


class Synonyms(Protocol):
    """Synonyms of a word as this part of speech."""

    def synonyms(self, word: str, pos: str) -> list[str]: ...


@dataclass(kw_only=True)
class Tools:
    """Resources, and which oracles there are to be asked.

    Args:
        neighbours: nearest words; None = an attack that wants them cannot run.
        wordnet: synonyms; None likewise.
        stop_words: words that are never changed.
        oracles: names of the oracles that an attack may ask: `victim`, `exact`, and perhaps
            `encoder`, `masked_lm`, `tagger`.
        unknown: what stands for a word the victim does not know, as text.
        mask: what stands for a hidden word, as text.
        seed: of random choices, which depend on it, the text and the place alone.
    """

    neighbours: Near | None = None
    wordnet: Synonyms | None = None
    stop_words: frozenset[str]
    oracles: frozenset[str] = frozenset({"victim", "exact"})
    unknown: str = "[UNK]"
    mask: str = "[MASK]"
    seed: int = 0

    def __post_init__(self) -> None:
        self.stop_words = frozenset(word.lower() for word in self.stop_words)

    def keeps(self, word: str) -> bool:
        """Whether this is a stop word."""
        return word.lower() in self.stop_words

    def free(self, text: Words) -> list[int]:
        """The places of all words but stop words."""
        return [place for place, word in enumerate(text.words) if not self.keeps(word)]
