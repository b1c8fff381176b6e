"""Windows: the gradient accordance of one training, window by window."""

import math
import time
from typing import Any

import lightning as L
from torch import Tensor

from lit_adv import processes
from lit_adv.accordance.held_out import held_out
from lit_adv.accordance.how import How, task_losses
from lit_adv.accordance.probe import Probe
from lit_adv.accordance.readings import Reading
from lit_adv.accordance.stretch import MEANS, Stretch
from lit_adv.functional.accordance import Accordance
from lit_adv.functional.sketch import CountSketch
from lit_adv.nested import on_device, on_host


class Windows:
    """Notes what is trained on, measures it when a window is whole, and adds up the epoch.

    Args:
        how: the settings.
        trainer: of a training that starts.
        module: what is trained.

    Raises:
        ValueError: no weight has such a name, there is no validation data to go against, or
            theta=moving with sharded weights.
    """

    def __init__(self, how: How, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._how, self._trainer, self._module = how, trainer, module
        probe = self._probe()
        if how.moving and probe.sharded:
            raise ValueError("accordance.theta=moving: weights are sharded; choose theta=fixed")
        self._held_out: list[Any] = []
        if how.against != "train":
            with probe.standing_still():
                self._held_out = held_out(trainer, module, how.held_out)
        self._sketch: CountSketch | None = None
        if how.sketch is not None:  # once: it draws a sign for each weight
            # Parts of one vector are sketched apart, or like places in them would always meet.
            self._sketch = CountSketch(how.sketch, processes.rank() if probe.joint else 0)
        self._step = trainer.global_step
        self._observed = False
        self._epoch = self._fresh() if how.merges else None
        self._begin()

    # ---- while training --------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the window at hand has a batch."""
        return self._now.begun

    def observe(self, batch: Any, losses: Tensor, share: float) -> None:
        """For theta=moving: losses of a training pass, before they are descended."""
        self._observed = True
        if self._how.moving and self._now.wants_next:
            self._now.observe(self._probe(), batch, losses, share)

    def passed(self, batch: Any) -> bool:
        """A batch has been trained on; returns whether its window is whole."""
        step, last = self._trainer.global_step, self._trainer.is_last_batch
        self._now.passed(batch, moving=self._how.moving)
        if step > self._step or last:
            self._step = step
            self._now.stepped(moving=self._how.moving)
        every = self._how.every_n_steps
        return last or (every is not None and step - self._begun >= every)

    # ---- readings --------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Measure the window that ends here, and begin the next."""
        trainer, since = self._trainer, time.perf_counter()
        values, errors = self._measure()
        seconds = time.perf_counter() - since
        done = trainer.fit_loop.batch_idx + 1
        length = done if trainer.is_last_batch else trainer.num_training_batches
        if self._epoch is not None:
            self._epoch.merge(self._now.accordance)
        self._begin()
        values = {name: v for name, v in values.items() if math.isfinite(v)}  # NaN: no pair
        epoch = trainer.current_epoch + done / length
        return Reading(trainer.global_step, epoch, values, errors, seconds)

    def of_epoch(self) -> dict[str, float]:
        """The means over all windows since this was asked, as `cross_epoch` and so on."""
        if self._epoch is None or not self._epoch.batches:
            return {}
        means, self._epoch = self._epoch.compute(), self._fresh()
        return {f"{name}_epoch": means[name] for name in MEANS if math.isfinite(means[name])}

    def _measure(self) -> tuple[dict[str, float], dict[str, float]]:
        how, now, probe = self._how, self._now, self._probe()
        if how.moving and not (self._observed or now.accordance.sums):
            raise ValueError(
                f"accordance.theta=moving: {type(self._module).__name__} has shown no losses; call "
                "observe(batch, losses) in its training_step, or set theta=fixed"
            )
        values: dict[str, float] = {}
        errors: dict[str, float] = {}
        with probe.standing_still():
            if how.against != "train":
                classes = how.against == "both"
                against = now.pass_against(probe, self._held_out, classes=classes)
                values["validation"], errors["validation"] = against.compute()
            elif not how.moving:
                now.pass_again(probe)
        if how.against == "validation":
            return values, errors
        means, spread = now.means(probe)
        return {**means, **values}, {**spread, **errors}

    def _begin(self) -> None:
        """A new stretch of training."""
        trainer, every = self._trainer, self._how.every_n_steps
        length = trainer.num_training_batches
        length -= (trainer.fit_loop.batch_idx + 1) % length  # what is left of the epoch
        if every is not None:
            length = min(length, every * trainer.accumulate_grad_batches)
        self._now = Stretch(self._how.wanted, length, self._fresh())
        self._begun = trainer.global_step

    def _probe(self) -> Probe:
        """Anew each time: what trains and the loss scale may have changed."""
        how = self._how
        losses = how.losses or task_losses
        return Probe(self._module, losses, how.labels, how.parameters, how.mode)

    def _fresh(self) -> Accordance:
        total = self._probe().total
        return Accordance(self._how.normalize, matrix=False, sketch=self._sketch, total=total)

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What all processes have noted of the window at hand, and of the epoch."""
        state = {"begun": self._begun, "now": self._now.state_dict(self._module.device)}
        if self._epoch is not None:
            mine = on_host(self._epoch.state_dict())
            state["epoch"] = processes.gather(mine) if self._probe().joint else [mine]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, as far as the processes are as many."""
        device = self._module.device
        if "now" in state:
            self._begun = state["begun"]
            self._now.load_state_dict(state["now"], device)
        parts, joint = state.get("epoch", []), self._probe().joint
        if self._epoch is not None and len(parts) == (processes.count() if joint else 1):
            mine = parts[processes.rank() if joint else 0]
            self._epoch.load_state_dict(on_device(mine, device))
