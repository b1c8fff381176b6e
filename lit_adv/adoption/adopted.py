"""Adopted: somebody's LightningModule, trained by a method of this library."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from lit_adv.adoption.settings import settings
from lit_adv.adoption.visit import Visit

Module = TypeVar("Module", bound=L.LightningModule)


class Adopted(L.LightningModule):
    """Mixed in before a LightningModule with automatic optimisation; see `lit_adv.adopt`.

    `training_step` is called once per pass of the method. The passes' gradients are in `.grad`
    before Lightning passes backwards, accumulates, clips, steps and schedules as it always does: of
    all this nothing changes. What the module logs, and its metrics see, is the first pass that
    trains.
    """

    adversary: ClassVar[Mapping[str, Any]] = {}
    """What `adopt` would be called with, for subclasses: `{"method": "fgm", "radius": 0.5}`."""

    made_by_adopt: ClassVar[bool] = False
    """Whether the class is `adopt`'s: other modules of it have not been adopted."""

    @property
    def _visit(self) -> Visit:
        # Not a child of the module: it would be saved, moved and printed with it.
        visit = self.__dict__.get("_lit_adv")
        if visit is None:
            if self.made_by_adopt:
                raise ValueError(
                    f"{type(self).__name__}: made by the class of an adopted module, such as by "
                    "load_from_checkpoint; it has no method: adopt it as well"
                )
            visit = self.__dict__["_lit_adv"] = Visit(self, settings(**self.adversary))
        return visit

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(Adopted)]
        if any("training_step" in vars(kind) for kind in before):
            raise TypeError(
                f"{cls.__name__}: its own training_step would hide that of the method; leave it in "
                f"a class behind Adopted: class {cls.__name__}(Adopted, Theirs)"
            )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.trainer.training and torch.is_grad_enabled()):
            return super().training_step(*args, **kwargs)  # as a validation step may ask for it
        visit = self._visit
        if visit.opens:  # Lightning would, behind the step: its passes have gone backward then
            epoch, batch_idx = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx
            super().optimizer_zero_grad(epoch, batch_idx, self.trainer.optimizers[0])
        return visit.training_step(super().training_step, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Done before the training step."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        visit = self.__dict__.get("_lit_adv")
        if visit is None or not visit.muted:
            super().log(*args, **kwargs)

    def on_fit_start(self) -> None:
        self._visit.begin()
        super().on_fit_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._visit.begin_epoch()

    def on_train_epoch_end(self) -> None:
        self._visit.end_epoch()
        super().on_train_epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if "_lit_adv" in self.__dict__ or not self.made_by_adopt:
            checkpoint["lit_adv"] = self._visit.memory()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            self._visit.remember(checkpoint.get("lit_adv"))


def adopt(module: Module, method: Any = "fgm", **options: Any) -> Module:
    """Train this LightningModule by a method of this library; see `lit_adv.adopt`."""
    kind = type(module)
    if "_lit_adv" in module.__dict__ or (issubclass(kind, Adopted) and not kind.made_by_adopt):
        raise ValueError(f"{kind.__name__}: is adopted already")
    visit = Visit(module, settings(method, **options))
    if not issubclass(kind, Adopted):
        names: dict[str, Any] = {
            n: getattr(kind, n) for n in ("__module__", "__qualname__", "__doc__")
        }
        metaclass: Any = type(kind)
        made = metaclass(kind.__name__, (Adopted, kind), {**names, "made_by_adopt": True})
        module.__class__ = made
    module.__dict__["_lit_adv"] = visit
    return module
