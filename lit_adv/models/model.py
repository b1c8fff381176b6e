"""Model: a network and the tokenizer that feeds it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv.data.splits import Label, Splits
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Task


@dataclass(kw_only=True)
class Model:
    """A network for sequence classification (or regression), its tokenizer, its place to perturb.

    Args:
        network: with a head of as many outputs as there are classes, or one.
        tokenizer: from texts to the network's inputs.
        at: name of the module whose output is perturbed; None asks the network.
        special_tokens: `perturb` or `keep` clean.
    """

    network: nn.Module
    tokenizer: PreTrainedTokenizerBase
    at: str | None = None
    special_tokens: str = "perturb"

    def task(self, splits: Splits) -> Task:
        """The task that these labels ask for."""
        place = {"at": self.at, "special_tokens": self.special_tokens}
        if splits.label_names is None:
            return Regression(self.network, variance=_variance(splits.train.labels), **place)
        return Classification(self.network, num_labels=len(splits.label_names), **place)


def _variance(values: Sequence[Label]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)
