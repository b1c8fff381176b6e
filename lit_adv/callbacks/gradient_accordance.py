"""GradientAccordance: whether steps on one batch help others, measured while training."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from lit_adv import processes
from lit_adv.accordance import picture
from lit_adv.accordance.held_out import held_out
from lit_adv.accordance.kept import Kept
from lit_adv.accordance.probe import Labels, Losses, Probe
from lit_adv.accordance.readings import SERIES, Reading
from lit_adv.accordance.stretch import MEANS, Stretch
from lit_adv.functional.accordance import Accordance, Normalize
from lit_adv.functional.sketch import CountSketch
from lit_adv.nested import on_device, on_host
from lit_adv.ranges import one_of, whole


def task_losses(module: L.LightningModule, batch: Any) -> Tensor:
    """What a FineTuner descends, of each example."""
    task: Any = module.task
    return task.losses(task(batch), batch)


def batch_labels(batch: Any) -> Tensor | None:
    """The labels of a batch that names them."""
    return batch.get("labels") if hasattr(batch, "get") else None


class GradientAccordance(L.Callback):
    """Logs `accordance/cross`, `same`, `all`, `within` (see `Accordance`) and `validation`.

    At the end of each epoch, and every `every_n_steps` optimizer steps, at the weights as they are
    then, a few of the batches just trained on pass once more. It only watches: gradients, weights,
    random streams and modes are afterwards what they were before.

    `validation` is the mean cosine of training batches' gradients with that of held-out data: above
    zero, a step still lowers the held-out loss.

    Every process looks at its own batches; their sums are added up once per window. With sharded
    weights the batches of all processes are one, and each keeps its part of the vectors (but not
    with parameters=head, whose vectors are whole in each).

    Works for any LightningModule:

        GradientAccordance(losses=lambda module, batch: F.cross_entropy(
            module(batch["x"]), batch["y"], reduction="none"), labels=lambda batch: batch["y"])

    Args:
        theta: `fixed`, passes of their own at fixed weights; `moving`, the training passes
            themselves, each at its weights: no further forward pass, but a backward pass per class.
            A module other than FineTuner then calls `observe` in its training step.
        against: `train`, other training batches; `validation`, held-out ones; or `both`.
        batches: training batches to look at per window, evenly spaced: a number, or a share (at
            least two batches); None = a tenth, for theta=moving a twentieth. Of an epoch of unknown
            length a number of the last ones, and for theta=moving all.
        held_out: validation examples to look at, of all processes, from evenly spaced batches.
        every_n_steps: length of a window in optimizer steps; None = the epoch. Windows are merged
            into the value of the epoch, logged as `accordance/cross_epoch` and so on.
        parameters: `all`, `head`, or a regular expression; see Probe. The head needs no backward
            pass through the network.
        normalize: `cosine` or `none`.
        pairs: the series that the picture marks: `cross`, `same`, `all` or `validation`.
        mode: `eval` or `train`, with dropout.
        sketch: buckets of a CountSketch, from which standard errors are had; None = none.
        losses: from module and batch to the loss of each example; None = a FineTuner's.
        labels: from batch to the class of each example; None or numbers: all are of one class.
        monitor: the validation loss in the picture.
        picture: file in the trainer's root folder; None = none.

    Raises:
        ValueError: an argument lies outside its range; at the start: the module does not say its
            losses, no weight has such a name, or there is no validation data to go against; at the
            first reading: for theta=moving nothing was observed.
    """

    def __init__(
        self,
        theta: Literal["fixed", "moving"] = "fixed",
        against: Literal["train", "validation", "both"] = "train",
        batches: int | float | None = None,
        held_out: int = 256,
        every_n_steps: int | None = None,
        parameters: str = "all",
        normalize: Normalize = "cosine",
        pairs: Literal["cross", "same", "all", "validation"] | None = None,
        mode: Literal["eval", "train"] = "eval",
        sketch: int | None = None,
        losses: Losses | None = None,
        labels: Labels = batch_labels,
        monitor: str = "val/loss",
        picture: str | None = "accordance.png",
    ) -> None:
        self.theta = one_of(("fixed", "moving"), "accordance.theta", theta)
        self.against = one_of(("train", "validation", "both"), "accordance.against", against)
        self.normalize: Normalize = one_of(("cosine", "none"), "accordance.normalize", normalize)
        self.pairs = pairs or ("validation" if against == "validation" else "cross")
        one_of(SERIES, "accordance.pairs", self.pairs)
        if against == ("train" if self.pairs == "validation" else "validation"):
            raise ValueError(
                f"accordance.pairs={pairs}: not measured with accordance.against={against}"
            )
        self.mode: Literal["eval", "train"] = one_of(("eval", "train"), "accordance.mode", mode)
        if every_n_steps is not None:
            whole(1, "accordance.every_n_steps", every_n_steps)
        if theta == "moving" and against != "train":
            raise ValueError(
                f"accordance.against={against}: held-out data are not trained on; set theta=fixed"
            )
        default = 0.1 if theta == "fixed" else 0.05
        self.batches = default if batches is None else batches
        Kept(self.batches, 1)  # refuses what is no number of batches
        self.held_out = whole(1, "accordance.held_out", held_out)
        self.every_n_steps, self.parameters, self.sketch = every_n_steps, parameters, sketch
        self.losses, self.labels = losses, labels
        self.monitor, self.picture = monitor, picture
        self.listeners: list[Callable[[Reading], dict[str, float]]] = []
        """Told of every reading, in all processes; their figures are logged with it."""
        self.readings: list[Reading] = []
        self.validation: list[list[float]] = []
        """Step and validation loss."""
        self._fitting = True
        self._state: dict[str, Any] = {}  # from a checkpoint
        self._forget()

    # ---- while training --------------------------------------------------------------------------

    def observe(self, batch: Any, losses: Tensor, share: float = 1.0) -> None:
        """For theta=moving: losses of a training pass, before they are descended.

        A FineTuner calls it; another module does so in its training step.

        Args:
            batch: the batch at hand.
            losses: of its examples, [examples], with their graph.
            share: weight of this pass in the objective.

        Raises:
            ValueError: they are not losses of examples.
        """
        if losses.ndim != 1:
            raise ValueError(
                f"GradientAccordance.observe: losses {list(losses.shape)}: needs those of the "
                "examples, before their mean is taken, [examples]"
            )
        self._observed = True
        if self.theta == "moving" and self._now.wants_next:
            self._now.observe(self._probe(), batch, losses, share)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        moving, step = self.theta == "moving", trainer.global_step
        self._now.passed(batch, moving=moving)
        if step > self._step or trainer.is_last_batch:
            self._step = step
            self._now.stepped(moving=moving)
        full = self.every_n_steps is not None and step - self._begun >= self.every_n_steps
        if full or trainer.is_last_batch:
            self._read(trainer, pl_module)
        if trainer.is_last_batch:
            self._end_epoch(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._now.begun:  # max_steps has ended the epoch before its last batch
            self._read(trainer, pl_module)
        self._end_epoch(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor in trainer.callback_metrics and not trainer.sanity_checking:
            now = [float(trainer.global_step), float(trainer.callback_metrics[self.monitor])]
            if now not in self.validation[-1:]:  # the weights may not have moved since
                self.validation.append(now)

    # ---- readings --------------------------------------------------------------------------------

    def _read(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        since = time.perf_counter()
        values, errors = self._measure(trainer, module)
        seconds = time.perf_counter() - since
        done = trainer.fit_loop.batch_idx + 1
        length = done if trainer.is_last_batch else trainer.num_training_batches
        epoch = trainer.current_epoch + done / length
        values = {name: v for name, v in values.items() if math.isfinite(v)}  # NaN: no pair
        reading = Reading(trainer.global_step, epoch, values, errors, seconds)
        self.readings.append(reading)
        figures = _named({**values, "seconds": seconds})
        for hear in self.listeners:
            figures |= hear(reading)
        _log(trainer, figures)
        if self._epoch is not None:
            self._epoch.merge(self._now.accordance)
        self._begin(trainer)

    def _measure(
        self, trainer: L.Trainer, module: L.LightningModule
    ) -> tuple[dict[str, float], dict[str, float]]:
        probe, now = self._probe(), self._now
        if self.theta == "moving" and not (self._observed or now.accordance.sums):
            raise ValueError(
                f"accordance.theta=moving: {type(module).__name__} has shown no losses; call "
                "observe(batch, losses) in its training_step, or set theta=fixed"
            )
        values: dict[str, float] = {}
        errors: dict[str, float] = {}
        with probe.standing_still():
            if self.against != "train":
                classes = self.against == "both"
                against = now.pass_against(probe, self._held_out, classes=classes)
                values["validation"], errors["validation"] = against.compute()
            elif self.theta == "fixed":
                now.pass_again(probe)
        if self.against == "validation":
            return values, errors
        means, spread = now.means(probe)
        return {**means, **values}, {**spread, **errors}

    def _end_epoch(self, trainer: L.Trainer) -> None:
        if self._epoch is not None and self._epoch.batches:
            means = self._epoch.compute()
            there = [name for name in MEANS if math.isfinite(means[name])]
            _log(trainer, _named({f"{name}_epoch": means[name] for name in there}))
            self._epoch = self._fresh()

    # ---- before and after ------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        self.readings, self.validation, self._state = [], [], {}
        self._forget()
        if self.losses is None and not hasattr(getattr(pl_module, "task", None), "losses"):
            raise ValueError(
                f"GradientAccordance: {type(pl_module).__name__} does not say the losses of its "
                "examples; give losses=lambda module, batch: ... of shape [examples]"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        losses, mode = self.losses or task_losses, self.mode
        self._probe = partial(Probe, pl_module, losses, self.labels, self.parameters, mode)
        if self.theta == "moving" and self._probe().sharded:
            raise ValueError("accordance.theta=moving: weights are sharded; choose theta=fixed")
        if self.against != "train":
            with self._probe().standing_still():
                self._held_out = held_out(trainer, pl_module, self.held_out)
        if self.sketch is not None:  # once: it draws a sign for each weight
            # Parts of one vector are sketched apart, or like places in them would always meet.
            self._sketch = CountSketch(self.sketch, processes.rank() if self._probe().joint else 0)
        self._step = trainer.global_step
        self._epoch = self._fresh() if self._merges else None
        self._begin(trainer)
        if self._state:
            self._go_on(pl_module.device)
        if self.theta == "moving" and hasattr(pl_module, "observers"):
            pl_module.observers.append(self.observe)  # pyright: ignore

    def _begin(self, trainer: L.Trainer) -> None:
        """A new stretch of training."""
        length = trainer.num_training_batches
        length -= (trainer.fit_loop.batch_idx + 1) % length  # what is left of the epoch
        if self.every_n_steps is not None:
            length = min(length, self.every_n_steps * trainer.accumulate_grad_batches)
        self._now = Stretch(self.batches, length, self._fresh())
        self._begun = trainer.global_step

    def _fresh(self) -> Accordance:
        total, sketch = self._probe().total, self._sketch
        return Accordance(self.normalize, matrix=False, sketch=sketch, total=total)

    @property
    def _merges(self) -> bool:
        return self.every_n_steps is not None and self.against != "validation"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer, pl_module)
        self._forget()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._end(trainer, pl_module)  # and forgets nothing: a checkpoint may be written now

    def _end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        there = any(reading.values for reading in self.readings)
        if self.picture is not None and there and trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.picture
            picture.draw(self.readings, self.validation, path, marked=self.pairs)
        observers = getattr(pl_module, "observers", [])
        if self.observe in observers:
            observers.remove(self.observe)

    def _forget(self) -> None:
        """Whatever belongs to one training."""
        self._probe: Callable[[], Probe] = _no_training
        self._now: Any = None
        self._epoch: Accordance | None = None
        self._sketch: CountSketch | None = None
        self._held_out: list[Any] = []
        self._step = self._begun = 0
        self._observed = False

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "readings": [asdict(reading) for reading in self.readings],
            "validation": self.validation,
        }
        if self._now is not None:
            device = self._probe().module.device
            state |= {"begun": self._begun, "now": self._now.state_dict(device)}
        if self._epoch is not None:
            mine = on_host(self._epoch.state_dict())
            state["epoch"] = processes.gather(mine) if self._probe().joint else [mine]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._fitting:
            return  # a checkpoint that is only judged takes no reading back
        self.readings = [Reading(**reading) for reading in state_dict["readings"]]
        self.validation = state_dict["validation"]
        self._state = state_dict

    def _go_on(self, device: torch.device) -> None:
        state, self._state = self._state, {}
        if "now" in state:
            self._begun = state["begun"]
            self._now.load_state_dict(state["now"], device)
        parts, joint = state.get("epoch", []), self._probe().joint
        if self._epoch is not None and len(parts) == (processes.count() if joint else 1):
            mine = parts[processes.rank() if joint else 0]
            self._epoch.load_state_dict(on_device(mine, device))


def _named(values: dict[str, float]) -> dict[str, float]:
    return {f"accordance/{name}": value for name, value in values.items()}


def _log(trainer: L.Trainer, figures: dict[str, float]) -> None:
    # Not by the module's log: it would wait for Lightning's n-th step, and give monitors the mean
    # over the epoch at its end. In the row of the last step, as Lightning numbers them.
    for logger in trainer.loggers:
        logger.log_metrics(figures, step=trainer.global_step - 1)
    trainer.callback_metrics.update({name: torch.tensor(v) for name, v in figures.items()})


def _no_training() -> Probe:
    raise RuntimeError("GradientAccordance: nothing is being trained")
