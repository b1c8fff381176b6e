"""Adapters in a network: whether there are some, what is kept of them, what they end as."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn


def has_adapters(network: nn.Module) -> bool:
    """Whether it trains adapters."""
    return hasattr(network, "peft_config")


def inner(network: Any) -> nn.Module:
    """The network itself, without what peft has put around it, which names fewer inputs."""
    return network.get_base_model() if has_adapters(network) else network


def hold_only_what_trains(network: nn.Module) -> None:
    """The network's `state_dict` leaves out its frozen weights, and loads without them."""
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}

    def leave_out(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: Any) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    def do_without(_: nn.Module, keys: Any) -> None:
        keys.missing_keys[:] = [key for key in keys.missing_keys if not _is_of(key, frozen)]

    network.register_state_dict_post_hook(leave_out)
    network.register_load_state_dict_post_hook(do_without)


def write(network: Any, folder: Path) -> None:
    """Write the adapters and the head, as peft does: to be put into the same network again."""
    network.save_pretrained(folder, save_embedding_layers=False)  # or it would ask the hub


def merged(network: Any) -> Any:
    """The network without peft, its adapters added to the weights in place.

    What was around it is of no use afterwards.
    """
    return network.merge_and_unload()


def _is_of(key: str, names: set[str]) -> bool:
    # Named from the module that is loaded, which may hold the network.
    return any(key == name or key.endswith(f".{name}") for name in names)
