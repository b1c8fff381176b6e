"""Precision, recall and F1 of whole entities."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_adv.ranges import one_of
from lit_adv.tasks.cross_entropy import IGNORED


class EntityF1(Metric):
    """An entity counts where its first word, its last word and its kind are right.

    Spans are read from the tags by nervaluate, as conlleval does: a tag I-x that follows no x
    begins an entity. Counts are added up over batches and processes.

    Args:
        label_names: of the tags: O, B-x, I-x.
        of: `f1`, `precision` or `recall`.
        options: of torchmetrics' Metric.

    Raises:
        ValueError: nervaluate is not installed.
        ValueError: a tag is none of these.
    """

    higher_is_better = True
    full_state_update = False
    right: Tensor
    predicted: Tensor
    there: Tensor

    def __init__(self, label_names: Sequence[str], of: str = "f1", **options: Any) -> None:
        super().__init__(**options)
        if find_spec("nervaluate") is None:
            raise ValueError(
                "task=token_classification: entities are read by nervaluate, which is not "
                "installed (it needs Python 3.11); pip install nervaluate"
            )
        odd = [name for name in label_names if name != "O" and name[:2] not in ("B-", "I-")]
        if odd:
            raise ValueError(f"label_names: {odd[0]} is no tag of entities; they are O, B-x, I-x")
        self.label_names = list(label_names)
        self.of = one_of(("f1", "precision", "recall"), "of", of)
        for name in ("right", "predicted", "there"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count the entities of a batch.

        Args:
            predicted: tags, [batch, tokens].
            labels: tags, [batch, tokens]; what is ignored is no word.
        """
        found, true = self._entities(predicted, labels), self._entities(labels, labels)
        self.right += sum(len(a & b) for a, b in zip(found, true, strict=True))
        self.predicted += sum(map(len, found))
        self.there += sum(map(len, true))

    def compute(self) -> Tensor:
        """A share; zero where there is nothing to share."""
        parts = {
            "f1": (2 * self.right, self.predicted + self.there),
            "precision": (self.right, self.predicted),
            "recall": (self.right, self.there),
        }
        part, whole = parts[self.of]
        return part / whole.clamp(min=1)

    def _entities(self, tags: Tensor, labels: Tensor) -> list[set[Any]]:
        from nervaluate.loaders import ListLoader  # here: other tasks do without

        rows = zip(tags.tolist(), labels.tolist(), strict=True)
        named = [
            [self.label_names[t] for t, y in zip(*row, strict=True) if y != IGNORED] for row in rows
        ]
        return [set(entities) for entities in ListLoader().load(named)]
