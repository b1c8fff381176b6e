"""LossUpAccUp: where a validation loss comes from that rises while accuracy rises too."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lit_adv import processes
from lit_adv.callbacks import loss_up_acc_up_picture
from lit_adv.functional import loss_split
from lit_adv.random_state import RandomState


class LossUpAccUp(L.Callback):
    """Takes every validation loss apart: right and wrong predictions, worst examples, confidence.

    A network that has fitted its training set goes on to grow sure of itself. On what it gets right
    that saves little, what it gets wrong costs ever more, so that few mistakes can raise the mean
    loss while their number falls (Guo et al., ICML 2017, arXiv:1706.04599). Logged are, beside the
    module's own `val/loss`:

    * `val/loss_right`, `val/loss_wrong`: what right and wrong predictions add to the mean, in nats;
    * `val/loss_worst_share`: share of the loss that the worst examples hold;
    * `val/confidence_right`, `val/confidence_wrong`: mean probability of what was predicted; NaN
      where nothing was right, or wrong;
    * `val/calibration`: expected calibration error, 15 bins.

    The loss is the cross-entropy of the logits, whatever the module itself validates by; of several
    validation sets all examples count together, and of several processes those of all. Works with
    any module that predicts one class of several: no second pass is needed where one of its parts
    answers with the logits in `validation_step`.

    Args:
        worst: which share of the examples are the worst, in (0, 1).
        picture: whether to draw `loss_up_acc_up.png` into the trainer's `default_root_dir` when
            training ends.
        logits: where logits [batch, classes] come from: name of the part of the module whose first
            output in each `validation_step` they are (or have, as `.logits`); None = `task`, or
            without one the module itself; or a function of module and batch, for a pass of its own.
        labels: key or place of the labels in a batch.

    Raises:
        ValueError: `worst` lies outside its range; when training starts, if there is no such part;
            at the first validation (the sanity check too), if labels or logits are not those of a
            classification.
    """

    def __init__(
        self,
        worst: float = 0.05,
        picture: bool = True,
        logits: str | Callable[[L.LightningModule, Any], Tensor] | None = None,
        labels: str | int = "labels",
    ) -> None:
        if not 0 < worst < 1:
            raise ValueError(f"callbacks: worst={worst}: a share of the examples, in (0, 1)")
        self.worst = worst
        self.picture = picture
        self.logits = logits
        self.labels = labels
        self.series: list[dict[str, float]] = []
        """Per validation: the step, the logged figures by name, and the accuracy."""
        self.histograms: dict[str, list[list[int]]] = {}
        """Right and wrong predictions per bin, where the loss was `lowest` and at the `last`."""
        self._training = True
        self._examples: list[Tensor] = []  # loss, right, confidence
        self._labels = torch.zeros(0)
        self._answer: Any = None
        self._hook: RemovableHandle | None = None

    # ---- in validation ---------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._training = stage == "fit"

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not callable(self.logits):
            self._part(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._examples = []
        if not callable(self.logits):
            self._hook = self._part(pl_module).register_forward_hook(self._listen)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._labels = self._labels_of(batch)  # before the step, which may take them out
        self._answer = None

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if callable(self.logits):
            now = RandomState(pl_module.device)  # some networks draw in evaluation mode, too
            with trainer.precision_plugin.val_step_context():
                self._answer = self.logits(pl_module, batch)
            now.rewind()
        losses, right, confidence = loss_split.examples(self._logits(), self._labels)
        self._examples.append(torch.stack([losses, right.to(losses.dtype), confidence], 1))
        self._answer = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seen, self._examples = self._examples, []
        if trainer.sanity_checking:
            return
        here = torch.cat(seen).cpu().double() if seen else torch.zeros(0, 3, dtype=torch.float64)
        losses, right, confidence = torch.cat(processes.gather(here)).T.contiguous()
        if not len(losses):
            return

        right = right.bool()
        row = loss_split.figures(losses, right, confidence, self.worst)
        logged = {f"val/{name}": value for name, value in row.items() if name != "accuracy"}
        pl_module.log_dict(logged, sync_dist=True)
        if self._training:
            self.series.append({"step": trainer.global_step, **row})
            self.histograms["last"] = loss_split.histogram(confidence, right).tolist()
            if loss_up_acc_up_picture.lowest(self.series) is self.series[-1]:
                self.histograms["lowest"] = self.histograms["last"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_listening()

    # ---- when training ends ----------------------------------------------------------------------

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._stop_listening()
        if self._training:
            self._draw(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"series": self.series, "histograms": self.histograms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._training:  # a checkpoint that is only validated does not take the series back
            self.series = [dict(row) for row in state_dict["series"]]
            self.histograms = dict(state_dict["histograms"])

    def _draw(self, trainer: L.Trainer) -> None:
        if self.picture and self.series and trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            figure = loss_up_acc_up_picture.draw(self.series, self.histograms, self.worst)
            figure.savefig(folder / "loss_up_acc_up.png", dpi=150)

    # ---- logits and labels -----------------------------------------------------------------------

    def _part(self, pl_module: L.LightningModule) -> nn.Module:
        """Whose output the logits are."""
        assert not callable(self.logits)
        parts = dict(pl_module.named_modules())
        name = ("task" if "task" in parts else "") if self.logits is None else self.logits
        if name not in parts:
            children = ", ".join(child for child, _ in pl_module.named_children())
            raise ValueError(
                f"callbacks: logits={name}: {type(pl_module).__name__} has no part of that name; "
                f"it has {children}"
            )
        return parts[name]

    def _listen(self, part: nn.Module, inputs: Any, output: Any) -> None:
        if self._answer is None:  # the first: wrapped by DDP, the module answers for the step, too
            self._answer = getattr(output, "logits", output)

    def _stop_listening(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = None

    def _labels_of(self, batch: Any) -> Tensor:
        try:
            labels = batch[self.labels]
        except (KeyError, IndexError, TypeError) as error:
            kind = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(
                f"callbacks: labels={self.labels}: not in the validation batch ({kind})"
            ) from error
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim != 1:
            raise ValueError(
                f"callbacks: LossUpAccUp: the labels are {_kind(labels)}, not whole numbers "
                "[batch]; only classifications are right or wrong, so leave the callback out"
            )
        return labels.long()

    def _logits(self) -> Tensor:
        logits = self._answer
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"callbacks: LossUpAccUp: the logits are {_kind(logits)}, not [batch, classes]; "
                "name by logits=NAME the part that answers with them in validation_step"
            )
        return logits.detach()


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype}{list(value.shape)}"
    return "missing" if value is None else f"a {type(value).__name__}"
