"""The victim: a classifier of texts that attacks ask for its logits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_adv.attacks.encoded import Encoded, Item, Reader


class Victim:
    """Answers each text, or pair of texts, with its logits, float32 [classes].

    Args:
        reader: a sequence classifier with its tokenizer.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    @property
    def classes(self) -> int:
        """How many classes it knows."""
        return int(self.reader.network.config.num_labels)  # pyright: ignore

    def keys(self, items: Sequence[Item]) -> list[Encoded]:
        return self.reader.encode(items)

    def answer(self, keys: Sequence[Encoded]) -> list[Any]:
        network = self.reader.network
        answers = self.reader.read(keys, lambda batch: network(**batch).logits)
        if not all(np.isfinite(logits).all() for logits in answers):
            raise ValueError(
                "attack: the victim answers NaN or infinity, which is no class; look at its "
                "weights, or set attack.precision=32"
            )
        return answers
