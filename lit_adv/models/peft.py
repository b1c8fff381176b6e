"""Which weights of a network train: all of them, or adapters beside weights that stand still."""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import nn

from lit_adv.adapters import hold_only_what_trains
from lit_adv.models.image_model import ImageModel
from lit_adv.models.loading import loading
from lit_adv.models.model import Model
from lit_adv.ranges import at_least, share, whole


@dataclass(kw_only=True, frozen=True)
class WholeNetwork:
    """All weights train."""

    def adapt(self, model: Model | ImageModel) -> None:
        """Leave the network as it is."""


@dataclass(kw_only=True, frozen=True)
class LoRA:
    """`W x + (alpha / r) B A x`, with A and B trained beside W (Hu et al., arXiv:2106.09685).

    By the library peft. The head trains as well, whole. Whatever goes by the weights that train
    then goes by these: masks, proximal terms and their references, AWP, accordance, EMA. The
    network's `state_dict`, and so a checkpoint, holds nothing else: the other weights are those
    that the run begins with, from their name and seed.

    Args:
        r: rank.
        alpha: adapters count alpha / r times.
        dropout: in front of the adapters.
        target_modules: ends of the names of the modules that get one, or `all-linear`; None = those
            that peft knows for the network.
        rslora: alpha / sqrt(r) times instead (arXiv:2312.03732).

    Raises:
        ValueError: an option lies outside its range.
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: Any = None
    rslora: bool = False

    def __post_init__(self) -> None:
        whole(1, "peft.r", self.r)
        at_least(0, "peft.alpha", self.alpha)
        share("peft.dropout", self.dropout)

    def adapt(self, model: Model | ImageModel) -> None:
        """Put adapters into the model's network, in place.

        Raises:
            ValueError: peft is not installed, no module has such a name, or the model is one for
                images.
        """
        if find_spec("peft") is None:
            raise ValueError("peft=lora: peft is not installed; pip install peft")
        if not isinstance(model, Model):
            raise ValueError("peft=lora: for texts; choose peft=none")
        from peft import LoraConfig, get_peft_model  # here: seconds that other trainings need not

        named = self.target_modules
        if isinstance(named, str) and named != "all-linear":
            named = [named]  # peft would take it for a pattern
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=named if named is None or isinstance(named, str) else list(named),
            modules_to_save=heads(model.network) if model.new_head else None,
            use_rslora=self.rslora,
            task_type=model.adapters,
        )
        with loading(f"peft.target_modules={named}"), warnings.catch_warnings():
            # Of names that peft has not yet learnt.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is depr")
            network: Any = get_peft_model(model.network, config)
        if any(getattr(module, "gradient_checkpointing", False) for module in network.modules()):
            network.disable_input_require_grads()  # see regions: peft has hooked the embeddings
        hold_only_what_trains(network)
        model.network = network


def heads(network: nn.Module) -> list[str]:
    """The parts of a network beside its body, which are new: all of them train."""
    body = getattr(network, "base_model_prefix", "")
    parts = network.named_children()
    return [name for name, part in parts if name != body and any(True for _ in part.parameters())]
