"""Alone: a method in a loop of one's own, bare or by Fabric."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from typing_extensions import TypedDict, Unpack

from lit_adv.adoption.borrowed import Borrowed, Loss
from lit_adv.adoption.guest import guest
from lit_adv.adoption.host import Host
from lit_adv.adoption.modules import unwrapped
from lit_adv.adoption.place import INPUT, Place
from lit_adv.descent import Descent
from lit_adv.ranges import whole
from lit_adv.recipe import Recipe

CHECK_EVERY = 50
"""Steps: asking for a value makes the host wait for the device."""


class Borrowing(TypedDict, total=False):
    """What a method needs to know of somebody else's network."""

    at: str | None
    tokens: Callable[[Any], Tensor] | None
    valid: tuple[Any, Any] | None
    logits: str | Callable[[Any], Tensor] | None
    distance: Callable[[Tensor, Tensor], Tensor] | None


class Options(Borrowing, total=False):
    """The same, and of the loop it is in."""

    descent: Descent | None
    optimizer: Optimizer | None
    backward: Callable[..., None]
    clip: Callable[[], object]
    accumulate_grad_batches: int
    total_steps: int


class Alone(Host):
    """`method.step(loss)` puts the method's gradient into `.grad`, where `loss.backward()` stood.

    Several processes: the passes run without DistributedDataParallel's reduction, and one by hand
    follows the last.

    Args:
        recipe: the method.
        network: whose weights train; as DistributedDataParallel or Fabric have wrapped it.
        options: `at`, `tokens`, `valid`: what is perturbed, see Place; `logits`, `distance`: for
            methods that compare answers, see Borrowed; `descent`: its flood, update, mask and
            proximal term count here; `optimizer`: for methods and updates that need it; `backward`:
            instead of `Tensor.backward`, as `fabric.backward`; `clip`: before the steps that a
            method takes beside yours; `accumulate_grad_batches`: calls of `step` per optimizer step
            (1); `total_steps`: of the whole training, for what depends on it (MBPP's momentum).

    Raises:
        ValueError: the method cannot do with this.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, **options: Unpack[Options]) -> None:
        inner = unwrapped(network)
        place = Place(inner, options.get("at"), options.get("tokens"), options.get("valid"))
        task = Borrowed(inner, place, options.get("logits"), options.get("distance"))
        self.window = whole(1, "accumulate_grad_batches", options.get("accumulate_grad_batches", 1))
        self.steps, self.total_steps = 0, options.get("total_steps", 0)
        self._optimizer = options.get("optimizer")
        self._clip = options.get("clip", lambda: None)
        self._call = options.get("backward", Tensor.backward)
        self._task = task
        self._unreduced = [m for m in network.modules() if isinstance(m, DistributedDataParallel)]
        self._guest = guest(recipe, task, self, options.get("descent"))
        self._within = 0
        self._noted = False
        self.logged: dict[str, Tensor] = {}
        """What the last step said of itself, by name: `perturbation/norm`, `flood/share`, ..."""
        self.batch_loss = torch.zeros(())
        """Mean loss of the last batch, at the first pass that trained."""

    def step(
        self, loss: Callable[..., Tensor], batch: Any = None, *, last: bool | None = None
    ) -> Tensor:
        """All passes over a batch; adds their gradient to the weights' `.grad`.

        Args:
            loss: the whole forward pass, called once per pass: without arguments, or with the
                batch, which is perturbed if `at` is `input`. Its answer is the mean over examples,
                or one number for each.
            batch: what it passes over, if the shape, the mask or the words are to be found there.
            last: whether this batch completes the effective batch; None = if there have been
                `accumulate_grad_batches`. The end of an epoch may complete it earlier.

        Returns:
            The mean loss of the batch at the first pass that trained, detached.

        Raises:
            ValueError: nothing can be perturbed, or logits are missing.
            FloatingPointError: the loss was not finite (asked for at every 50th step).
        """
        takes_batch = _takes_batch(loss)
        if not takes_batch:
            if self._task.place.at == INPUT:
                raise ValueError(
                    "at=input: the function gets the perturbed batch; give it an argument"
                )
            if self.window > 1 and self._guest.looks_again and not isinstance(loss, partial):
                raise ValueError(
                    f"update={type(self._guest.descent.update).__name__}: looks again at the "
                    "batches of an effective batch, which a function without arguments may no "
                    "longer know; give it the batch as its argument"
                )
        self.completes = self._within + 1 == self.window if last is None else last
        batch = object() if batch is None else batch  # nobody shows it: another one in every step
        self._noted, self.logged = False, {}
        if not self._within:
            self._guest.find_training_weights()  # who writes a loop may thaw some at any time
        try:
            with ExitStack() as stack:
                for module in self._unreduced:
                    stack.enter_context(module.no_sync())
                self._guest.passes_over(batch, self._noting(loss, takes_batch))
        except BaseException:
            self._guest.drop()
            self._within = 0
            raise
        self._within = 0 if self.completes else self._within + 1
        self.steps += self.completes
        if self.completes and self.steps % CHECK_EVERY == 0:
            self.check()
        return self.batch_loss

    def _noting(self, loss: Callable[..., Tensor], takes_batch: bool) -> Loss:
        """The same function, of whose passes the first that trains is noted."""

        def noting(batch: Any) -> Tensor:
            value = loss(batch) if takes_batch else loss()
            if not self._noted and self._guest.trains:
                self.batch_loss, self._noted = value.detach().mean(), True
            return value

        return noting

    def weigh_alike(self, batch: Any) -> None:
        """Each batch of the effective batch counts as much as its first, whatever its size.

        Args:
            batch: the one that the next step passes over.
        """
        if not self._within:
            self._task.examples = self._task.place.examples(batch)

    def check(self) -> None:
        """Ask, at the price of a wait for the device, whether all has been as it should.

        Raises:
            ValueError: nothing was perturbed, although it should have been.
            FloatingPointError: a loss was not finite.
        """
        self._guest.on_train_epoch_end()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: what the method remembers from step to step."""
        return {"steps": self.steps, **self._guest.memory()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.steps = state["steps"]
        self._guest.restore(state)

    # ---- the host ----------------------------------------------------------------------------

    @property
    def optimizer(self) -> Optimizer | None:
        # Within the one of Fabric, or accelerate.
        return getattr(self._optimizer, "optimizer", self._optimizer)

    def backward(self, number: Tensor, retain_graph: bool) -> None:
        self._call(number, **({"retain_graph": True} if retain_graph else {}))

    def own_step(self) -> None:
        if self._optimizer is None:
            raise ValueError("optimizer: a method that steps several times per batch needs it")
        self._clip()
        self._optimizer.step()

    def log(self, name: str, value: Tensor) -> None:
        self.logged[name] = value


def _takes_batch(loss: Callable[..., Tensor]) -> bool:
    """Whether the function wants an argument: one that has a default is its own business."""
    wanted = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(loss).parameters.values()
    return any(p.kind in wanted and p.default is p.empty for p in parameters)
