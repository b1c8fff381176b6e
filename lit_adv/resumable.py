"""Resumable: checkpoints from which a training goes on as if it had not been interrupted."""

import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from lit_adv import processes
from lit_adv.descent import Descent
from lit_adv.flood.flood import Flood
from lit_adv.masks.mask import Mask
from lit_adv.proximal.proximal import Proximal
from lit_adv.random_state import RandomState
from lit_adv.scheduled import Scheduled
from lit_adv.tasks.task import Task


class Resumable(Scheduled):
    """Saves what every process needs to go on to the last bit, wherever the training stops.

    Weights move at the ends of effective batches only. A checkpoint within one therefore is that of
    its beginning: counters and random streams are set back, and its batches are passed over again.
    Random streams differ between processes; each gets its own back, if there are as many.
    """

    def __init__(self, task: Task, descent: Descent | None = None) -> None:
        super().__init__(task, descent)
        self.resumes = False
        """Whether the first batch after a checkpoint is still to come."""
        self._streams: RandomState | None = None  # from a checkpoint within an epoch
        self._before_validation: RandomState | None = None
        self._took_streams = False
        self._beginning: dict[str, Any] = {}  # of the effective batch at hand
        self._loaders: list[Any] = []  # states of data loaders before it

    @property
    def open_batches(self) -> int:
        """Batches of an effective batch that is not whole yet."""
        return 0

    def process_state(self) -> dict[str, Any]:
        """What a process has for itself: random streams, and whatever a method adds."""
        return {"random": RandomState(self.device).state_dict()}

    def load_process_state(self, state: dict[str, Any]) -> None:
        """Take over what a process had for itself, but for PyTorch's random stream."""

    def remember_beginning(self) -> None:
        """Note the state of the process where an effective batch of several batches begins."""
        if self.descent.accumulate_grad_batches > 1:
            self._beginning = self.process_state()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        opened, loops = self.open_batches, checkpoint["loops"]["fit_loop"]
        progress = loops["epoch_loop.batch_progress"]
        checkpoint["lit_adv"] = {
            "method": type(self).__name__,
            "kinds": self._kinds,
            **{name: piece.state_dict() for name, piece in self._pieces.items()},
            "skipped_steps": self.skipped_steps,
            "within_epoch": not progress["is_last_batch"],
            "processes": processes.gather(self._beginning if opened else self.process_state()),
        }
        if opened:
            rewind(progress, opened)
            loops["state_dict"]["combined_loader"] = self._loaders

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trainer = self._trainer
        if trainer is not None and trainer.state.fn != TrainerFn.FITTING:
            return  # evaluation needs the weights only
        if "lit_adv" not in checkpoint:
            raise ValueError("ckpt_path: a checkpoint of something else than lit_adv")
        saved, self.resumes = checkpoint["lit_adv"], True
        for name, piece in self._pieces.items():
            kind = saved.get("kinds", self._kinds)[name]
            if kind == self._kinds[name]:
                piece.load_state_dict(saved[name])
            else:
                warnings.warn(
                    f"ckpt_path: its {name} was {kind}; {self._kinds[name]} begins anew",
                    stacklevel=2,
                )
        self.skipped_steps = saved["skipped_steps"]
        states = saved["processes"]
        if trainer is None or len(states) != trainer.world_size:
            return  # streams of other processes would be none of ours
        mine = states[trainer.global_rank]
        self.load_process_state(mine)
        self._took_streams = True
        streams = RandomState.of(mine["random"], trainer.strategy.root_device)
        # Between epochs now, for the data loader may draw its seed before the next one. Within an
        # epoch it had drawn it before: only the first batch goes on from there.
        if saved["within_epoch"]:
            self._streams = streams
        else:
            streams.rewind()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.resumes, self._streams, self._before_validation = False, None, None
        self._took_streams = False
        if stage == "fit" and self.trainer.global_step == 0:
            self.skipped_steps = 0  # of a training before this one
        # It would have us keep a copy of the weights from before each step.
        warnings.filterwarnings("ignore", "Using ModelCheckpoint with manual optimization")

    def on_train_start(self) -> None:
        loop = self.trainer.fit_loop
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:  # a checkpoint brings all that is in it
                if not optimizer.defaults.keys() <= group.keys():
                    name = type(optimizer).__name__
                    raise ValueError(
                        f"optimizer: the checkpoint's is not {name}; set the one that it had"
                    )
        if loop._combined_loader_states_to_load and loop._data_fetcher is not None:
            # Lightning had set up the data before it knew of the checkpoint: for the schedule,
            # which wants to know the number of steps.
            streams = RandomState(self.device)
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)
            streams.rewind()
        if self.resumes and self._streams is None and loop.restarting:
            # The training loader has drawn its seed; what a validation's draws is not for training.
            self._streams = RandomState(self.device)
        self._note_loaders()  # an epoch that is resumed is not started again

    def on_train_epoch_start(self) -> None:
        self._note_loaders()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if not self.resumes:
            return
        if self._streams is not None:
            self._streams.rewind()
        self.resumes, self._streams = False, None
        # Lightning may have counted the interrupted step twice.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.open_batches:
            self._note_loaders()
        if self.trainer.enable_validation:
            self._before_validation = RandomState(self.device)
        # Under manual optimisation Lightning's ModelCheckpoint forgets its train_time_interval.
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback._train_time_interval is not None:
                callback.on_train_batch_end(self.trainer, _AUTOMATIC, outputs, batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        # Whatever a validation has drawn, training goes on as without it, and as after a checkpoint
        # from before it.
        if self.trainer.state.fn == TrainerFn.FITTING and self._before_validation is not None:
            self._before_validation.rewind()

    def _note_loaders(self) -> None:
        """Where the data loaders stand, those that say, before the next effective batch."""
        loader = self.trainer.fit_loop._combined_loader
        if self.descent.accumulate_grad_batches > 1 and loader is not None:
            self._loaders = loader._state_dicts()

    @property
    def _kinds(self) -> dict[str, str]:
        return {name: type(piece).__name__ for name, piece in self._pieces.items()}

    @property
    def _pieces(self) -> dict[str, Flood | Proximal | Mask]:
        descent = self.descent
        return {"flood": descent.flood, "proximal": descent.proximal, "mask": descent.mask}


# Of the module, ModelCheckpoint asks only whether it optimises by hand.
_AUTOMATIC = L.LightningModule()


def rewind(progress: dict[str, Any], batches: int) -> None:
    """Set Lightning's counters back by so many batches, as if these had never been fetched."""
    for part in ("total", "current"):
        done = progress[part]["processed"] - batches
        for name in ("ready", "started", "processed", "completed"):
            progress[part][name] = done
