"""Keeper: a ModelCheckpoint that also saves when the training is told to end."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_adv import processes


class Keeper(ModelCheckpoint):
    """Saves on SIGTERM, after the batch at hand, beside whenever ModelCheckpoint does.

    Raises:
        ValueError: processes would write into different folders.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        folders = processes.gather(str(self.dirpath))
        if len(set(folders)) > 1:
            raise ValueError(
                f"output_dir: the processes write into {len(set(folders))} folders, which their "
                "start times name; give them one by hydra.run.dir=FOLDER"
            )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, SIGTERMException):
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))
