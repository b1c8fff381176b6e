"""Modules of somebody's network: itself without wrappers, and which of them is perturbed."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from lit_adv import inject


def perturbed(network: nn.Module, at: str | None) -> nn.Module:
    """The module whose output is perturbed; see Place.

    Raises:
        ValueError: there is no such module, or none that could be meant.
    """
    network = unwrapped(network)
    try:
        if at is None:
            models = _outermost(network)
            if len(models) > 1:
                names = ", ".join(models)
                raise ValueError(f"at=None: there are several models, {names}; name a module")
            if models:
                return inject.find_embeddings(next(iter(models.values())))
            tables = [m for m in network.modules() if isinstance(m, nn.Embedding)]
            if len(tables) == 1:
                return tables[0]
        return inject.find_embeddings(network, at)
    except ValueError as error:  # here it is an argument, there a setting
        said = str(error).replace("model.at=null", "at=None").replace("model.at", "at")
        raise ValueError(f"{said}; or at=input, the batch's first real numbers") from None


def unwrapped(network: nn.Module) -> nn.Module:
    """Without what Fabric or DistributedDataParallel have put around it."""
    from lightning.fabric.wrappers import _FabricModule

    while isinstance(network, DistributedDataParallel | _FabricModule):
        network = network.module
    return network


def tokens_first(network: nn.Module) -> bool:
    """Whether its one Hugging Face model answers with [tokens, batch, width]; see inject."""
    models = list(_outermost(unwrapped(network)).values())
    return len(models) == 1 and inject.tokens_first(models[0])


def _outermost(network: nn.Module) -> dict[str, nn.Module]:
    """The Hugging Face models that are not part of another, by name."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}." if outer else "") for outer in found)
        if isinstance(module, PreTrainedModel) and not inside:
            found[name] = module
    return found
