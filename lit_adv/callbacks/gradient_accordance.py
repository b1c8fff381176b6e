"""GradientAccordance: whether steps on one batch help others, measured while training."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from lit_adv import nested
from lit_adv.accordance import picture
from lit_adv.accordance.how import How, batch_labels
from lit_adv.accordance.probe import Labels, Losses
from lit_adv.accordance.readings import SERIES, Reading
from lit_adv.accordance.windows import Windows
from lit_adv.functional.accordance import Normalize
from lit_adv.ranges import one_of


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
        self.how = How(
            theta, against, batches, held_out, every_n_steps, parameters, normalize, mode, sketch,
            losses, labels,
        )  # fmt: skip
        self.pairs = pairs or ("validation" if against == "validation" else "cross")
        one_of(SERIES, "accordance.pairs", self.pairs)
        if against == ("train" if self.pairs == "validation" else "validation"):
            raise ValueError(
                f"accordance.pairs={pairs}: not measured with accordance.against={against}"
            )
        self.monitor, self.picture = monitor, picture
        self.listeners: list[Callable[[Reading], dict[str, float]]] = []
        """Told of every reading, in all processes; their figures are logged with it."""
        self.readings: list[Reading] = []
        self.validation: list[list[float]] = []
        """Step and validation loss."""
        self._fitting = True
        self._batch: Any = None  # at hand
        self._windows: Windows | None = None  # of the training at hand
        self._state: dict[str, Any] = {}  # from a checkpoint

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
        if self._windows is not None:
            self._windows.observe(batch, losses, share)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = nested.again(batch)  # its training step may take things out

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        windows = self._of_training()
        whole, self._batch = self._batch, None
        if windows.passed(batch if whole is None else whole):
            self._read(trainer, windows)
        if trainer.is_last_batch:  # before the validation, so that it can be monitored there
            self._end_epoch(trainer, windows)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        windows = self._of_training()
        if windows.begun:  # max_steps has ended the epoch before its last batch
            self._read(trainer, windows)
        self._end_epoch(trainer, windows)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor in trainer.callback_metrics and not trainer.sanity_checking:
            now = [float(trainer.global_step), float(trainer.callback_metrics[self.monitor])]
            if now not in self.validation[-1:]:  # the weights may not have moved since
                self.validation.append(now)

    def _read(self, trainer: L.Trainer, windows: Windows) -> None:
        reading = windows.read()
        self.readings.append(reading)
        told = {name: v for hear in self.listeners for name, v in hear(reading).items()}
        _log(trainer, {**reading.values, "seconds": reading.seconds}, told)

    def _end_epoch(self, trainer: L.Trainer, windows: Windows) -> None:
        if means := windows.of_epoch():
            _log(trainer, means)

    def _of_training(self) -> Windows:
        if self._windows is None:
            raise RuntimeError("GradientAccordance: nothing is being trained")
        return self._windows

    # ---- before and after ------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._fitting = stage == "fit"
        if self._fitting:
            self.readings, self.validation, self._state = [], [], {}
            self._windows = None
            self.how.suits(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._windows = Windows(self.how, trainer, pl_module)
        self._windows.load_state_dict(self._state)
        self._state = {}
        if self.how.moving and hasattr(pl_module, "observers"):
            pl_module.observers.append(self.observe)  # pyright: ignore

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer, pl_module)
        self._windows = None

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

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        readings = [asdict(reading) for reading in self.readings]
        noted = {} if self._windows is None else self._windows.state_dict()
        return {"readings": readings, "validation": self.validation, **noted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._fitting:
            return  # a checkpoint that is only judged takes no reading back
        self.readings = [Reading(**reading) for reading in state_dict["readings"]]
        self.validation = state_dict["validation"]
        self._state = state_dict


def _log(
    trainer: L.Trainer, accordance: dict[str, float], others: dict[str, float] | None = None
) -> None:
    figures = {f"accordance/{name}": value for name, value in accordance.items()} | (others or {})
    # Not by the module's log: it would wait for Lightning's n-th step, and give monitors the mean
    # over the epoch at its end. In the row of the last step, as Lightning numbers them.
    for logger in trainer.loggers:
        logger.log_metrics(figures, step=trainer.global_step - 1)
    trainer.callback_metrics.update({name: torch.tensor(v) for name, v in figures.items()})
