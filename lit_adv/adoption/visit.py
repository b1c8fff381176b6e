"""Visit: the training of somebody's LightningModule, as the host of a method."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from lit_adv import mixes, nested
from lit_adv.adoption.borrowed import Borrowed
from lit_adv.adoption.guest import guest
from lit_adv.adoption.hand_over import HandOver
from lit_adv.adoption.host import Host
from lit_adv.adoption.metrics import metrics_kept
from lit_adv.adoption.place import Place
from lit_adv.adoption.settings import Settings
from lit_adv.windowed import batches_left, ends_epoch


class Visit(Host):
    """What the Trainer of an adopted module tells its method, and does for it.

    Args:
        module: it.
        settings: what it is trained with.

    Raises:
        ValueError: the module cannot be trained so.
    """

    def __init__(self, module: L.LightningModule, settings: Settings) -> None:
        if not module.automatic_optimization:
            raise ValueError(
                f"{type(module).__name__}.automatic_optimization=False: its training_step steps "
                "the optimizer itself; call the method there instead of backward: "
                "method = FGM(...).on(self), method.step(loss)"
            )
        if type(module).backward is not L.LightningModule.backward:
            raise ValueError(
                f"{type(module).__name__}.backward: each pass goes backward by itself, and this "
                "would not be asked; scale the loss in training_step"
            )
        if "dataloader_iter" in inspect.signature(module.training_step).parameters:
            raise ValueError(
                f"{type(module).__name__}.training_step(dataloader_iter): a batch is passed over "
                "several times; take batch and batch_idx"
            )
        mixes.check_module(module)
        place = Place(module, settings.at, settings.tokens, settings.valid)
        self._task = Borrowed(module, place, settings.logits, settings.distance)
        self._guest = guest(settings.recipe, self._task, self)
        self._module = module
        self._losses = settings.losses
        self._takes: int | None = None  # arguments of the module's training step
        self._weights: list[Tensor] = []  # that train, whoever steps them
        self._metrics: list[Metric] = []
        self._memory: dict[str, Any] | None = None
        self.muted = False
        """Whether what the module logs is not of the pass that counts."""

    def training_step(self, theirs: Callable[..., Any], batch: Any, *args: Any) -> Any:
        """All passes over a batch; what Lightning passes backward from adds nothing to them.

        Args:
            theirs: the module's own.
            batch: the batch at hand.
            args: what Lightning gives it beside that.
        """
        self._takes = self._takes or _takes(theirs)
        taken = args[: self._takes - 1]
        call = self._losses or (lambda batch: theirs(batch, *taken))
        self._answer: dict[str, Any] | Tensor | None = None  # of the pass that counts
        self._guest.passes_over(batch, lambda batch: self._loss(call, batch))
        answer: Any = self._answer
        assert answer is not None, "no pass has trained"
        loss = answer["loss"] if isinstance(answer, dict) else answer
        weights = self._weights if self.averages and self.completes else []
        loss = HandOver.apply(loss.detach().requires_grad_(), *weights)
        return {**answer, "loss": loss} if isinstance(answer, dict) else loss

    def _loss(self, call: Callable[[Any], Any], batch: Any) -> Tensor:
        """One pass: the module's training step."""
        counts = self._answer is None and self._guest.trains
        with nullcontext() if counts else self._unnoticed():
            answer = call(nested.again(batch))
        if answer is None:
            raise ValueError(
                f"{type(self._module).__name__}.training_step returned None: a method needs the "
                "loss of every batch; return one, of zero weight if it is not to count"
            )
        loss = answer["loss"] if isinstance(answer, Mapping) else answer
        if counts:
            kept = loss.detach().mean()
            self._answer = {**answer, "loss": kept} if isinstance(answer, Mapping) else kept
        return loss

    @contextmanager
    def _unnoticed(self) -> Iterator[None]:
        """Passes inside the block leave no trace in logs and metrics."""
        self.muted = True
        try:
            with metrics_kept(self._metrics):
                yield
        finally:
            self.muted = False

    # ---- around the steps --------------------------------------------------------------------

    def begin(self) -> None:
        """Before the training.

        Raises:
            ValueError: the strategy or the precision cannot do what the method needs.
        """
        trainer = self._module.trainer
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ValueError(
                f"Trainer(strategy={type(trainer.strategy).__name__}): steps or shards the weights "
                "in its own way; take one device, or Trainer(strategy='ddp')"
            )
        mixes.check_precision(self._guest.descent, str(trainer.precision))
        self.averages = isinstance(trainer.strategy, DDPStrategy)
        steps = trainer.estimated_stepping_batches
        self.total_steps = int(steps) if 0 < steps < float("inf") else 0
        self._guest.settle()
        self.begin_epoch()  # one that is resumed is not started again
        if self._memory is not None:
            self._guest.restore(self._memory)
            self._memory = None

    def begin_epoch(self) -> None:
        """Callbacks may have thawed weights, and metrics may have been added."""
        self._guest.find_training_weights()
        self._weights = [w for w in self._module.parameters() if w.requires_grad]
        self._metrics = [m for m in self._module.modules() if isinstance(m, Metric)]

    def end_epoch(self) -> None:
        """Ask whether all was finite, and something was perturbed."""
        self._guest.on_train_epoch_end()

    def memory(self) -> dict[str, Any]:
        """For the checkpoint."""
        return self._guest.memory()

    def remember(self, memory: dict[str, Any] | None) -> None:
        """From a checkpoint; None = it is from before the module was adopted."""
        self._memory = memory

    # ---- the host ----------------------------------------------------------------------------

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._module.trainer.global_step

    @property
    def opens(self) -> bool:
        """Whether the batch at hand is the first one of its effective batch."""
        trainer = self._module.trainer
        return trainer.fit_loop.batch_idx % trainer.accumulate_grad_batches == 0

    @property
    def window(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        trainer = self._module.trainer
        return int(min(trainer.accumulate_grad_batches, batches_left(trainer)))

    @property
    def completes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        trainer = self._module.trainer
        done = trainer.fit_loop.batch_idx + 1
        return done % trainer.accumulate_grad_batches == 0 or ends_epoch(trainer)

    @property
    def optimizer(self) -> Optimizer:
        return self._module.trainer.optimizers[0]

    def backward(self, number: Tensor, retain_graph: bool) -> None:
        scaler = getattr(self._module.trainer.precision_plugin, "scaler", None)
        number = number if scaler is None else scaler.scale(number)
        number.backward(retain_graph=retain_graph)

    def own_step(self) -> None:
        closure: Any = torch.zeros(()).clone  # Lightning hears that there was a loss
        self._module.trainer.strategy.optimizer_step(self.optimizer, closure)

    def log(self, name: str, value: Tensor) -> None:
        L.LightningModule.log(self._module, name, value.detach())


def _takes(step: Callable[..., Any]) -> int:
    """How many arguments a training step takes."""
    parameters = inspect.signature(step).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    return len(parameters)
