"""Model: a network and the tokenizer that feeds it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_adv import adapters
from lit_adv.data.splits import Splits
from lit_adv.kinds.labels import Labels, kind_of
from lit_adv.tasks.classification import HeadInit
from lit_adv.tasks.task import Task


@dataclass(kw_only=True)
class Model:
    """A network, its tokenizer, its place to perturb.

    Args:
        network: with the head that its task needs.
        tokenizer: from texts to the network's inputs.
        at: name of the module whose output is perturbed; None asks the network.
        special_tokens: `perturb` or `keep` clean.
        head_init: of a classifier's last layer; see Classification.
        drop_token: chance of each word to be left out of a training batch; see data.DropToken.
        adapters: what peft calls a task of this kind.
        new_head: whether what stands beside the network's body is new, and trains with adapters.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    at: str | None = None
    special_tokens: str = "perturb"
    head_init: HeadInit = "random"
    drop_token: float = 0.0
    adapters: str = "SEQ_CLS"
    new_head: bool = True

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
        """The task that these rows are for.

        Raises:
            ValueError: the head is to be that of classes, and there are none.
        """
        kind = kind_of(splits)
        place: dict[str, Any] = {"at": self.at, "special_tokens": self.special_tokens}
        if self.head_init != "random":
            if not isinstance(kind, Labels):
                raise ValueError(
                    f"model.head_init={self.head_init}: for task=auto, not for task={kind.name}; "
                    "set model.head_init=random"
                )
            place["head_init"] = self.head_init
        return kind.task(self.network, splits, **place)


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
