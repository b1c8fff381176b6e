"""Sharding: weights that are dealt out to the processes, by PyTorch's `fully_shard` (FSDP2)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Deal out the weights, layer by layer, so that one layer at a time is whole in a process.

    Also those outside all layers are dealt out again after each forward pass, which is not the
    default: whoever asks the network for its weights would else get other ones between passes.
    """
    from torch.distributed.fsdp import fully_shard

    for module in reversed(list(network.modules())):  # lists within lists: the inner one first
        if isinstance(module, nn.ModuleList):
            for layer in module:
                fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def dealt_out(network: nn.Module) -> bool:
    """Whether the network's weights are."""
    return any(_dealt(weight) for weight in network.parameters())


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The part of each that this process has: the same memory."""
    return [_part(tensor) for tensor in tensors]


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all parts of it put together; all processes ask at once."""
    return tensor.full_tensor() if _dealt(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def whole_on_host(tensor: Tensor) -> Tensor:
    """The same, but what was dealt out comes to the host: a device may not hold it all."""
    together = whole(tensor)
    return together if together is tensor else together.cpu()


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, dealt out as the model is."""
    if not _dealt(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = model.device_mesh, model.placements  # pyright: ignore[reportAttributeAccessIssue]
    return distribute_tensor(tensor.to(model.device), mesh, placements)


def _part(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if _dealt(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def _dealt(tensor: Tensor) -> bool:
    # By duck: the class takes a fifth of a second to import, and is seldom wanted.
    return hasattr(tensor, "full_tensor")
