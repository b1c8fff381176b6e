"""The Trainer of transformers, whose gradients are a method's."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from lit_adv import mixes
from lit_adv.adoption.alone import Alone
from lit_adv.adoption.settings import settings
from lit_adv.descent import Descent

FILE = "adversary.pt"
"""In a checkpoint's folder: what the method remembers."""


class Adversarial:
    """Mixed in before a Trainer: its `compute_loss` is called once per pass of the method.

    The passes' gradients are in `.grad` before the Trainer passes backward; accumulation, clipping,
    schedules, logs and checkpoints are its own, as before. A flood compares the loss of the whole
    effective batch. A loss that the Trainer divides by the number of tokens of the effective batch
    is taken as it is.

    Args:
        args: of the Trainer.
        method: a method's name, class, or class with options, as `FGM(radius=0.5)`.
        adversary: what else `lit_adv.adopt` takes: `at`, `flood`, `update`, options of the method.
        options: of the Trainer.

    Raises:
        ValueError: the method cannot do with what the Trainer has.
    """

    def __init__(
        self,
        *args: Any,
        method: Any = "finetune",
        adversary: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.adversary = settings(method, **(adversary or {}))
        self._alone: Alone | None = None
        self._memory: Path | None = None  # of the checkpoint that the training goes on from
        super().__init__(*args, **options)
        self._trainer.add_callback(_Saves(self))

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **options: Any) -> Any:
        self._alone, self._memory = None, None
        if resume_from_checkpoint:
            folder = resume_from_checkpoint
            if folder is True:
                folder = get_last_checkpoint(self._trainer.args.output_dir)
            self._memory = Path(folder or ".") / FILE
        return super().train(resume_from_checkpoint, *args, **options)  # pyright: ignore[reportAttributeAccessIssue]

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **options: Any) -> Any:
        theirs = super().compute_loss  # pyright: ignore[reportAttributeAccessIssue]
        if (
            args
            or options.get("return_outputs")
            or not (model.training and torch.is_grad_enabled())
        ):
            return theirs(model, inputs, *args, **options)
        trainer = self._trainer
        if self._alone is None:
            self._alone = self._begun(model)
        self._alone.steps = trainer.state.global_step
        parts = trainer.current_gradient_accumulation_steps
        sums = self._sums(options.get("num_items_in_batch"))
        scale = parts if sums else 1
        self._alone.window = parts
        self._alone.weigh_alike(inputs)  # as the Trainer does

        def loss(batch: Any) -> Tensor:
            if self.adversary.losses is not None:
                return scale * self.adversary.losses(batch)
            # A copy: a Trainer with label smoothing takes the labels out.
            return scale * theirs(model, dict(batch), **options)

        last = trainer.accelerator.sync_gradients
        self._alone.step(loss, inputs, last=last)
        # Its gradient is in the weights: the Trainer may divide this, and pass backward from it.
        return (self._alone.batch_loss / scale).requires_grad_()

    def _sums(self, items: Any) -> bool:
        """Whether losses of micro-batches add up to that of the effective batch."""
        trainer = self._trainer
        said = getattr(trainer, "loss_is_scaled_for_ga", None)
        if said is not None:
            return said
        by_items = trainer.model_accepts_loss_kwargs and items is not None
        return by_items or trainer.compute_loss_func is not None

    def _begun(self, model: nn.Module) -> Alone:
        trainer, found = self._trainer, self.adversary
        kind = trainer.accelerator.distributed_type.value
        if isinstance(model, nn.DataParallel) or kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
            by = "DataParallel" if isinstance(model, nn.DataParallel) else kind
            raise ValueError(
                f"{by}: passes cannot be gathered under it; start one process per device by "
                "torchrun, which trains by DistributedDataParallel"
            )
        descent = found.recipe.descent or Descent()
        mixes.check_precision(descent, "16-mixed" if trainer.args.fp16 else "")
        alone = Alone(
            found.recipe,
            model,
            at=found.at,
            tokens=found.tokens,
            valid=found.valid,
            logits=found.logits,
            distance=found.distance,
            optimizer=trainer.optimizer,
            backward=trainer.accelerator.backward,
            clip=lambda: self._clip(model),
            total_steps=trainer.state.max_steps,
        )
        if self._memory is not None and not self._memory.exists():
            warnings.warn(f"{self._memory}: not there; the method begins anew", stacklevel=2)
        elif self._memory is not None:
            alone.load_state_dict(torch.load(self._memory, weights_only=True, map_location="cpu"))
        return alone

    def _clip(self, model: nn.Module) -> None:
        limit = self._trainer.args.max_grad_norm
        if limit:
            self._trainer.accelerator.clip_grad_norm_(model.parameters(), limit)

    @property
    def _trainer(self) -> Any:
        return self


class AdversarialTrainer(Adversarial, Trainer):
    """`transformers.Trainer`, adversarial: `AdversarialTrainer(model, args, method=FGM(...))`."""


class _Saves(TrainerCallback):
    """Puts what the method remembers into every checkpoint's folder."""

    def __init__(self, trainer: Adversarial) -> None:
        self._trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        alone = self._trainer._alone
        if alone is None:
            return
        memory = alone.state_dict()  # all processes ask at once
        if state.is_world_process_zero:
            trainer = self._trainer._trainer  # in a search each trial has a folder
            output = trainer._get_output_dir(trial=getattr(trainer, "_trial", None))
            folder = Path(output) / f"checkpoint-{state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(memory, folder / FILE)
