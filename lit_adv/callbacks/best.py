"""Best: a ModelCheckpoint whose best goes along when the training goes on in another folder."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint


class Best(ModelCheckpoint):
    """Keeps the best checkpoint, of the epochs before a training was resumed too.

    Lightning forgets what these were worth where the folder is another one, as that of a new run
    is: the first epoch to come would be the best, whatever it is worth.
    """

    _resumed: Path | None = None
    _writes = True

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._writes = trainer.is_global_zero

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed = None if trainer.ckpt_path is None else Path(trainer.ckpt_path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, folder = str(state_dict["best_model_path"]), self.dirpath
        if not before or folder is None or state_dict["dirpath"] == folder:
            super().load_state_dict(state_dict)
            return
        score = state_dict["best_model_score"]
        near = [] if self._resumed is None else [self._resumed.parent / Path(before).name]
        found = next((path for path in (Path(before), *near) if self._is_of(path, score)), None)
        if found is None:
            warnings.warn(
                f"ckpt_path: the best checkpoint of the epochs before, {before}, is not there; the "
                "best will be one of those to come",
                stacklevel=2,
            )
            return
        here = Path(folder) / found.name
        if found != here and self._writes:
            here.parent.mkdir(parents=True, exist_ok=True)
            part = here.with_name(f"{here.name}.part")
            shutil.copyfile(found, part)
            part.replace(here)
        path = str(here)
        super().load_state_dict(
            {
                **state_dict,
                **{"dirpath": folder, "best_model_path": path, "kth_best_model_path": path},
                **{"best_k_models": {path: score}, "kth_value": score, "last_model_path": ""},
            }
        )

    def _is_of(self, path: Path, score: Any) -> bool:
        """Whether this file is the checkpoint that was worth so much: a later one may be better."""
        if not path.is_file():
            return False
        saved = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        theirs = saved.get("callbacks", {}).get(self.state_key, {})
        return theirs.get("best_model_score") == score
