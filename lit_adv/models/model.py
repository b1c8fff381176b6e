"""Model: a network and the tokenizer that feeds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_adv import adapters
from lit_adv.data.images import ImageSplits
from lit_adv.data.splits import Label, Splits
from lit_adv.tasks.classification import Classification, HeadInit
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
        head_init: of a classifier's last layer; see Classification.
        drop_token: chance of each word to be left out of a training batch; see data.DropToken.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    at: str | None = None
    special_tokens: str = "perturb"
    head_init: HeadInit = "random"
    drop_token: float = 0.0

    def write(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the network and its tokenizer, for a pipeline; adapters beside it, and merged.

        A network with adapters is of no use afterwards.
        """
        network: Any = self.network
        if adapters.has_adapters(network):
            adapters.write(network, folder.parent / "adapter")
            network = adapters.merged(network)
            weights = network.state_dict()
        network.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    def task(self, splits: Splits) -> Task:
        """The task that these labels ask for.

        Raises:
            ValueError: the head is to be that of classes, and there are none.
        """
        if splits.label_names is None:
            if self.head_init != "random":
                raise ValueError(
                    f"model.head_init={self.head_init}: the labels are numbers, which have no "
                    "classes; set model.head_init=random"
                )
            return Regression(
                self.network,
                variance=_variance(splits.train.labels),
                at=self.at,
                special_tokens=self.special_tokens,
            )
        return Classification(
            self.network,
            num_labels=len(splits.label_names),
            at=self.at,
            special_tokens=self.special_tokens,
            head_init=self.head_init,
        )


def of_texts(splits: Any, model: str) -> Splits:
    """The splits, which are texts.

    Raises:
        ValueError: they are images.
    """
    if not isinstance(splits, Splits):
        raise ValueError(
            f"model={model}: for texts, and the data are images; choose model=mlp, convolutional "
            "or vit"
        )
    return splits


def labels(splits: Splits | ImageSplits) -> dict[str, Any]:
    """What a network's configuration says of its outputs: how many, and their names."""
    if splits.label_names is None:
        return {"num_labels": 1}
    return {
        "num_labels": len(splits.label_names),
        "id2label": dict(enumerate(splits.label_names)),
        "label2id": {name: index for index, name in enumerate(splits.label_names)},
    }


def _variance(values: Sequence[Label]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)
