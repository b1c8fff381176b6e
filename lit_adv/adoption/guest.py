"""Guest: a method at work in a loop that somebody else runs, which steps the weights itself."""

from contextlib import ExitStack
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_adv import parallel, processes, standstill
from lit_adv.adoption import demands
from lit_adv.adoption.borrowed import Borrowed, Loss
from lit_adv.adoption.host import Host
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.finite import FirstNonFinite
from lit_adv.random_state import RandomState
from lit_adv.recipe import Recipe
from lit_adv.window import Window


class Guest(FineTuner):
    """Mixed into a method's class: the passes are the method's, the steps are the host's.

    What Lightning would do for the module, a host does: counting, steps, schedules, logs. When the
    training step of an effective batch's last part has ended, `.grad` is what the host steps along.
    """

    host: Host

    def __init__(self, task: Borrowed, descent: Descent | None = None, **options: Any) -> None:
        super().__init__(task, descent, **options)
        self._behind = False  # a step has been taken that the proximal reference has not followed
        self._stepping = ExitStack()  # rates of the step that the optimizer takes next
        self._hooked: Optimizer | None = None
        self._begun = self._mask_begun = False

    def settle(self) -> None:
        """Before the first batch: from now on it is known which weights train, and where."""
        self.drop()
        self.descent.proximal.teacher = None  # it begins at these weights, or at a checkpoint's
        self._mask_begun = False
        self.find_training_weights()
        self._finite, self._begun = FirstNonFinite(self.device), True
        for name, buffer in self.named_buffers(recurse=False):
            setattr(self, name, buffer.to(self.device))

    def drop(self) -> None:
        """Forget an effective batch that was broken off."""
        self._window, self._rehearsal, self.again = None, [], False
        self._task.calls = []
        self._stepping.close()

    def find_training_weights(self) -> None:
        super().find_training_weights()
        optimizer = self.host.optimizer
        if optimizer is not None:  # what it does not step keeps a gradient that is nobody's
            stepped = {id(w) for group in optimizer.param_groups for w in group["params"]}
            self.training_weights = [w for w in self.training_weights if id(w) in stepped]

    @property
    def inert(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Here what are settings there are arguments, and which tokens may move the batch says."""
        said = super().inert.replace("model.at and model.special_tokens", "at")
        return said.replace("method.", "")

    @property
    def trains(self) -> bool:
        """Whether the pass at hand trains, and is none of a second look."""
        return not (
            self.again or not torch.is_grad_enabled() or standstill.is_frozen(self._task.network)
        )

    def passes_over(self, batch: Any, loss: Loss) -> None:
        """All passes over a batch: adds their gradient to the weights' `.grad`.

        Args:
            batch: the batch at hand, another object than the others of its effective batch.
            loss: of this batch.
        """
        self._task.forget()
        if self.passes == "own steps" and self.host.window > 1:
            raise ValueError(
                f"{type(self).__name__}: steps several times per batch, so a batch cannot be one "
                f"of {self.host.window} of an effective batch; set accumulate_grad_batches=1"
            )
        if not self._begun:
            self.settle()
        self._task.calls.append((batch, loss))
        self._stepping.close()  # of a step that the optimizer left out
        if not self._mask_begun:
            self.descent.mask.begin(self.task, tuple)
            self._mask_begun = True
        if self._window is None:
            self._follow()
        if self.looks_again:
            self._rehearsal.append((batch, 0, RandomState(self.device, *self.streams)))
        self.training_step(batch, 0)
        if self._window is None:
            self._task.calls = []

    def memory(self) -> dict[str, Any]:
        """What the method and its pieces remember from step to step, for a checkpoint."""
        mine = {k: v for k, v in self.process_state().items() if k != "random"}
        return {
            "pieces": {name: piece.state_dict() for name, piece in self._pieces.items()},
            "buffers": dict(self.named_buffers(recurse=False)),
            "behind": self._behind,
            "processes": processes.gather(mine),
        }

    def restore(self, memory: dict[str, Any]) -> None:
        """Take that over; what processes had for themselves only where there are as many."""
        for name, piece in self._pieces.items():
            piece.load_state_dict(memory["pieces"][name])
        for name, buffer in self.named_buffers(recurse=False):
            if name in memory["buffers"]:
                buffer.copy_(memory["buffers"][name])
        self.descent.proximal.teacher, self._mask_begun = None, False
        self._behind = memory["behind"]
        if len(memory["processes"]) == processes.count():
            self.load_process_state(memory["processes"][processes.rank()])

    # ---- what Lightning would know -----------------------------------------------------------

    @property
    def _task(self) -> Borrowed:
        return cast(Borrowed, self.task)

    @property
    def device(self) -> torch.device:
        return self._task.place.device

    @property
    def global_rank(self) -> int:
        return processes.rank()

    @property
    def steps_taken(self) -> int:
        return self.host.steps

    @property
    def completes(self) -> bool:
        if self.again:
            return self.window.position + 1 == len(self._rehearsal)
        return self.host.completes

    @property
    def window(self) -> Window:
        if self._window is None:
            size = len(self._rehearsal) if self.again else self.host.window
            self._window = self._open(size)
        return self._window

    @property
    def _logs(self) -> bool:
        return True

    def log(self, name: str, value: Any, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.host.log(name, value)

    # ---- what Lightning would do -------------------------------------------------------------

    def _backward(self, number: Tensor | None, *, last: bool = False, **options: bool) -> None:
        if number is not None:
            self.host.backward(number, options.get("retain_graph", False))

    def finish(self, *, counted: bool = True) -> None:
        window = self.window
        if not window.full:
            return
        self._window = None
        update = self.descent.update
        self._finite.watch(window.watched, self.steps_taken)
        if self.again:
            self._note_flood(window)
            return
        self.descent.flood.note(window.loss)
        if self.looks_again:
            parallel.average(self.training_weights)
            self._look_again(self._optimizer)
        else:
            self._note_flood(window)
        if not (counted and self.host.averages):
            parallel.average(self.training_weights)
        self._mask()
        if not counted:
            self.host.own_step()
            torch.clear_autocast_cache()  # it may hold half-precision copies from before
            for weight in self.training_weights:
                weight.grad = None
        elif update.needs_optimizer:
            self._stepping.enter_context(update.stepping(self._optimizer, self.steps_taken))
        self._behind = self._behind or counted

    def _mask_and_clip(self, optimizer: Optimizer) -> None:
        self._mask()  # clipping is the host's

    def _mask(self) -> None:
        if self.descent.mask.acts:
            self.note("mask/share", self.descent.mask.apply(self.task, self.steps_taken))

    @property
    def _optimizer(self) -> Optimizer:
        """The host's; when it has stepped, its rates are as before.

        Raises:
            ValueError: it is not known.
        """
        optimizer = self.host.optimizer
        if optimizer is None and self.descent.update.needs_optimizer:
            raise ValueError(
                f"update={type(self.descent.update).__name__}: steps by your optimizer's rates; "
                "give it: optimizer="
            )
        if optimizer is not None and optimizer is not self._hooked:
            optimizer.register_step_post_hook(lambda *_: self._stepping.close())
            self._hooked = optimizer
        return cast(Optimizer, optimizer)

    def schedule(self, interval: str, count: int) -> None:
        """The host's own business."""

    def _check_finite(self) -> None:
        self._finite.check(float("inf"), 1)

    def _follow(self) -> None:
        """What comes behind an optimizer step: before the passes of the next."""
        proximal = self.descent.proximal
        if not proximal.weight:
            return
        if proximal.teacher is None:
            proximal.begin(self.task)
        if self._behind:
            proximal.follow(self.task, self.steps_taken, self.host.total_steps)
        self._behind = False


def guest(recipe: Recipe, task: Borrowed, host: Host, descent: Descent | None = None) -> Guest:
    """The method of a recipe, as a guest of this host.

    Raises:
        ValueError: it cannot be; see `demands.make`.
    """
    kind = type(recipe.method)(recipe.method.__name__, (Guest, recipe.method), {})
    # Pieces remember: each training has its own.
    descent = deepcopy(descent or recipe.descent or Descent())
    made: Guest = kind(task, descent, **recipe.options)
    made.host = host
    demands.make(made, task)
    return made
