"""What must stand still while a perturbation is looked for; all is put back when the block ends."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Weights and batch-norm statistics stand still: for passes that only look for a perturbation.

    Without weights to train, autograd keeps neither their gradients nor the activations these would
    need: two thirds of the time of a training pass and about 0.7 of its memory. Take the gradient
    inside the block: activations that are recomputed for it would find weights that train.
    """
    with still(network.parameters()), statistics_kept(network):
        yield


def is_frozen(network: nn.Module) -> bool:
    """Whether no weight trains, as within `frozen`."""
    return not any(weight.requires_grad for weight in network.parameters())


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module's own mode comes back at its end."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def still(weights: Iterable[Tensor]) -> Iterator[None]:
    """These weights need no gradient inside the block."""
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch-norm statistics are used and not moved: for passes beside the one that counts."""
    norms = [m for m in network.modules() if isinstance(m, BatchNorm) and m.training]
    statistics = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    # Copies move, the originals stay out of it: the graph made inside may be used after the block.
    for norm, saved in zip(norms, statistics, strict=True):
        for name, buffer in saved.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, saved in zip(norms, statistics, strict=True):
            for name, buffer in saved.items():
                setattr(norm, name, buffer)
