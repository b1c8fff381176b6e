"""Where a perturbation enters a network, and what must stand still while it is looked for.

The perturbation is added by a forward hook on the token-embedding module, not through
`inputs_embeds`: that path changes position ids in some models, loses token types and tempts to
embed twice. Everything displaced here is put back when the block ends, also when it ends in an
error.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

BatchNorm = nn.modules.batchnorm._BatchNorm


def find_embeddings(network: nn.Module, at: str | None = None) -> nn.Module:
    """The module whose output is perturbed.

    Args:
        network: any Hugging Face model, or any module if `at` is given.
        at: dotted name of a submodule; None asks the network (`get_input_embeddings()`, of the
            encoder in an encoder-decoder).

    Raises:
        ValueError: no such submodule, or the network does not say where its embeddings are.
    """
    if at is not None:
        modules = dict(network.named_modules())
        if at not in modules:
            raise ValueError(f"model.at={at}: no such module; {_candidates(network)}")
        return modules[at]

    owner: Any = network
    if getattr(getattr(network, "config", None), "is_encoder_decoder", False):
        owner = owner.get_encoder()
    try:
        embeddings = owner.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embeddings = None
    if not isinstance(embeddings, nn.Module):
        raise ValueError(
            f"model.at=null: {type(network).__name__} does not name its token embeddings; "
            f"set model.at to a module's name; {_candidates(network)}"
        )
    return embeddings


def find_layer(network: nn.Module, name: str | None = None) -> nn.Module:
    """The module of this name, or the first of a network's stacked layers.

    Raises:
        ValueError: no such module, or no stack of layers.
    """
    modules = dict(network.named_modules())
    if name is not None:
        if name not in modules:
            near = ", ".join(list(modules)[1:12])
            raise ValueError(f"method.split={name}: no such module; there are {near}, ...")
        return modules[name]
    for module in modules.values():
        if isinstance(module, nn.ModuleList) and len(module):
            return module[0]
    raise ValueError(
        f"method.split=null: {type(network).__name__} has no stack of layers; name a module"
    )


def share_of_layers(network: nn.Module, last: nn.Module) -> float:
    """The share of a network's stacked layers that runs up to and with this one.

    A module that is none of them counts by its weights.
    """
    config = getattr(network, "config", None)
    layers = getattr(config, "num_hidden_layers", 0)  # more than there are where one serves for all
    if getattr(config, "is_encoder_decoder", False):
        layers += getattr(config, "decoder_layers", getattr(config, "num_decoder_layers", 0))
    for stack in network.modules():
        if isinstance(stack, nn.ModuleList) and last in list(stack):
            return (list(stack).index(last) + 1) / max(layers, len(stack))
    sizes = [sum(w.numel() for w in module.parameters()) for module in (last, network)]
    return sizes[0] / max(1, sizes[1])


@contextmanager
def perturbed(
    embeddings: nn.Module, delta: Tensor | None, relative: bool = False
) -> Iterator[list[Tensor]]:
    """Add `delta` to the first output of this module inside the block; None adds nothing.

    Only the first call counts: an encoder-decoder that shares its table calls it again for the
    decoder's tokens. Yields a list that will hold the perturbed output.

    Args:
        embeddings: the module.
        delta: perturbation, [batch, tokens, width].
        relative: delta is in units of each word vector's standard deviation, which is taken as a
            constant; otherwise in units of the vectors.

    Raises:
        RuntimeError: the module was not called, so nothing was perturbed.
    """
    outputs: list[Tensor] = []
    if delta is None:
        yield outputs
        return

    def add(module: nn.Module, args: object, output: Tensor) -> Tensor:
        if outputs:
            return output
        unit = output.detach().std(-1, keepdim=True) if relative else 1.0
        # In the network's own type: a float32 sum would switch off half-precision weights behind
        # it.
        outputs.append(output + (unit * delta).to(output.dtype))
        return outputs[0]

    handle = embeddings.register_forward_hook(add)
    try:
        yield outputs
    finally:
        handle.remove()
    if not outputs:
        raise RuntimeError(
            f"the perturbed module ({embeddings}) was not called by the network's forward; "
            "name one that is with model.at"
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Weights and batch-norm statistics stand still: for passes that only look for a perturbation.

    Without weights to train, autograd keeps neither their gradients nor the activations these would
    need: two thirds of the time of a training pass and about 0.7 of its memory.
    """
    with still(network.parameters()), statistics_kept(network):
        yield


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


@contextmanager
def captured(module: nn.Module) -> Iterator[list[Any]]:
    """A list of what this module answers inside the block."""
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda _, args, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def cut(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Backward passes end behind the first call of this module inside the block.

    Yields a list that will hold its answer, with its graph, and the leaf that goes on in its place.
    """
    answers: list[tuple[Tensor, Tensor]] = []

    def replace(_: nn.Module, args: object, output: Any) -> Any:
        if answers:
            return output
        answer = output if isinstance(output, Tensor) else output[0]
        leaf = answer.detach().requires_grad_()
        answers.append((answer, leaf))
        return leaf if isinstance(output, Tensor) else (leaf, *output[1:])

    handle = module.register_forward_hook(replace)
    try:
        yield answers
    finally:
        handle.remove()


def up_to(network: nn.Module, module: nn.Module, call: Callable[[], object]) -> Any:
    """What `module` answers within the call of a network, which ends there: the rest never runs.

    Raises:
        RuntimeError: the module was not called.
    """

    class Reached(Exception):
        pass

    outputs: list[Any] = []

    def stop(_: nn.Module, args: object, output: Any) -> None:
        outputs.append(output)
        raise Reached

    handle = module.register_forward_hook(stop)
    try:
        call()
    except Reached:
        return outputs[0]
    finally:
        handle.remove()
    raise RuntimeError(f"{module} was not called by the forward of {type(network).__name__}")


def twice_differentiable() -> AbstractContextManager[Any]:
    """Attention by plain products inside the block: the fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


class RandomState:
    """The state of PyTorch's random stream at one moment, to draw the same dropout masks again.

    Args:
        device: where the network is.
        generators: other streams to be put back as well.
    """

    def __init__(self, device: torch.device, *generators: torch.Generator) -> None:
        self._host = torch.get_rng_state()
        self._device: tuple[torch.device, Tensor] | None = None
        if device.type == "cuda":
            self._device = (device, torch.cuda.get_rng_state(device))
        self._generators = [(generator, generator.get_state()) for generator in generators]

    def state_dict(self) -> dict[str, Tensor]:
        """PyTorch's stream of the host and, if it has one, of the device, for a checkpoint."""
        state = {"host": self._host}
        return state if self._device is None else {**state, "device": self._device[1]}

    @classmethod
    def of(cls, state: dict[str, Tensor], device: torch.device) -> "RandomState":
        """The state that a checkpoint holds; a stream of another kind of device stays as it is."""
        now = cls(device)
        now._host = state["host"].cpu()
        if now._device is not None and "device" in state:
            now._device = (device, state["device"].cpu())
        return now

    def rewind(self) -> None:
        """Put the streams back to that moment."""
        torch.set_rng_state(self._host)
        if self._device is not None:
            device, state = self._device
            torch.cuda.set_rng_state(state, device)
        for generator, state in self._generators:
            generator.set_state(state)


def _candidates(network: nn.Module) -> str:
    named = network.named_modules()
    tables = [name for name, module in named if isinstance(module, nn.Embedding)]
    return f"embedding modules here: {', '.join(tables) or 'none'}"
