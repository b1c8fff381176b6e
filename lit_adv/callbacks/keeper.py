"""Keeper: a ModelCheckpoint that also saves when the training is told to end."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_adv import processes


class Keeper(ModelCheckpoint):
    """Saves on SIGTERM, after the batch at hand, beside when ModelCheckpoint does within epochs.

    Raises:
        ValueError: processes would write into different folders.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folders = processes.gather(str(self.dirpath))  # before all take the first one's
        if len(set(folders)) > 1:
            raise ValueError(
                f"output_dir: the processes write into {len(set(folders))} folders, which their "
                "start times name; give them one by hydra.run.dir=FOLDER"
            )

        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **options: Any) -> None:
        # Not at an epoch's last batch: from there Lightning resumes with the next epoch, without
        # the validation of this one. At the epoch's end a checkpoint is written anyway.
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *args, **options)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, SIGTERMException):
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))
