"""Kind: from the columns of a table to the rows, the network and the task that belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv.data.tokenised import Tokenised
from lit_adv.tasks.task import Task

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table
    from lit_adv.data.splits import Split, Splits


@dataclass(kw_only=True, frozen=True)
class Kind(ABC):
    """Base of all kinds; their fields are what `task` says in a configuration."""

    name: ClassVar[str]
    """Its file in `conf/task`."""

    architecture: ClassVar[str]
    """Of the network, as in `AutoModelFor...` of transformers; empty = one without a head."""

    adapters: ClassVar[str]
    """What peft calls it."""

    new_head: ClassVar[bool] = True
    """Whether the network gets a head for it that was not pretrained."""

    labels_tokens: ClassVar[bool] = False
    """Whether each token has a label."""

    drops_tokens: ClassVar[bool] = False
    """Whether words may be left out of training texts."""

    @property
    def may_be_cut(self) -> bool:
        """Whether training rows may stand in for a missing split."""
        return True

    @abstractmethod
    def needs(self, columns: Columns) -> dict[str, str]:
        """The columns that have to be there, by the key that names them."""

    def labelled_by(self, label: str) -> str:
        """The column that holds the labels, where the data say it is this one."""
        return label

    def names(self, columns: Columns, train: Table) -> list[str] | None:
        """Names of the classes, in the order of their indices; None = there are none."""
        return None

    @abstractmethod
    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        """The rows of a table.

        Raises:
            ValueError: a row cannot be read.
        """

    def tokenised(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Tokenised:
        """The rows in tokens, cut to `max_length` per text."""
        return Tokenised.of(split, tokenizer, max_length)

    def corpus(self, split: Split) -> Iterator[str]:
        """All texts, for a tokenizer that is trained on them."""
        yield from split.texts
        yield from split.pairs or []

    def sizes(self, splits: Splits) -> dict[str, Any]:
        """What a network's configuration says of its outputs: of classes, number and names."""
        return {} if splits.label_names is None else class_sizes(splits.label_names)

    @abstractmethod
    def task(self, network: nn.Module, splits: Splits, **place: Any) -> Task:
        """The task.

        Args:
            network: of this architecture.
            splits: whose training rows may decide something.
            place: `at` and `special_tokens`; see Task.
        """


def class_sizes(names: list[str]) -> dict[str, Any]:
    """Number and names of classes, as a network's configuration holds them."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
