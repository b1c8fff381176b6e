"""Adapters in a network: whether there are some, what is kept of them, what they end as."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BESIDE = "trained_beside"
"""In a `state_dict`: the digest of the weights that are left out."""
COPY = ".original_module."
"""In a name: the part that a trained one stands in for, which is of no use."""
SOME = 64
"""Numbers of each weight that a digest goes by."""


def has_adapters(network: nn.Module) -> bool:
    """Whether it trains adapters."""
    return hasattr(network, "peft_config")


def inner(network: Any) -> nn.Module:
    """The network itself, without what peft has put around it, which names fewer inputs."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def hold_only_what_trains(network: nn.Module) -> None:
    """The network's `state_dict` leaves out its frozen weights, and loads without them.

    In their place stands what tells them from others: weights that are trained beside these are of
    no use beside any others, and loading them there ends in a ValueError.
    """
    frozen = {
        name: w
        for name, w in network.named_parameters(remove_duplicate=False)
        if not w.requires_grad
    }
    beside = digest({name: w for name, w in frozen.items() if COPY not in name})

    def leave_out(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: Any) -> None:
        for name in frozen_names:
            state.pop(prefix + name, None)
        state[prefix + BESIDE] = beside.clone()

    def check(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: Any) -> None:
        theirs = state.pop(prefix + BESIDE, None)
        if theirs is not None and not torch.equal(theirs.cpu(), beside):
            raise ValueError(
                "ckpt_path: the weights that its adapters were trained beside are not those here; "
                "give the model, model.init and seed that it was trained with"
            )

    def do_without(_: nn.Module, keys: Any) -> None:
        keys.missing_keys[:] = [key for key in keys.missing_keys if not _is_of(key, frozen_names)]

    frozen_names = set(frozen)
    del frozen  # or the weights would live as long as the hooks
    network.register_load_state_dict_pre_hook(check)
    network.register_state_dict_post_hook(leave_out)
    network.register_load_state_dict_post_hook(do_without)


def digest(weights: Mapping[str, Tensor]) -> Tensor:
    """Of their names, sizes and a few of their numbers, 32 bytes."""
    seen = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        flat = weight.detach().flatten()
        some = flat[:: max(1, flat.numel() // SOME)].float().cpu()
        seen.update(f"{name} {list(weight.shape)}".encode() + some.numpy().tobytes())
    return torch.frombuffer(bytearray(seen.digest()), dtype=torch.uint8)


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
