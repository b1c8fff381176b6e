"""metrics.csv of a run that goes on in its own folder: what was logged before the checkpoint."""

import csv
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from lit_adv import checkpoint


def go_on(trainer: L.Trainer, checkpoint_path: str) -> None:
    """Keep the rows of steps that the checkpoint holds; the run logs the others anew.

    Lightning's logger begins its file anew instead, and the curves with it.

    Args:
        trainer: with the run's loggers.
        checkpoint_path: that it goes on from; one of another folder has its rows there.
    """
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir) / "metrics.csv"
        own = Path(checkpoint_path).resolve().is_relative_to(path.parent.resolve())
        if own and trainer.is_global_zero and path.exists():
            kept = before(path, checkpoint.load(checkpoint_path)["global_step"])
            writer = logger.experiment  # this takes the file away
            writer.metrics = kept  # pyright: ignore
            writer.save()


def before(path: Path, step: int) -> list[dict[str, str]]:
    """The rows of steps before this one, without their empty values.

    Args:
        path: of the file; a last line that was cut off is left out.
        step: optimizer steps that were done.
    """
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    rows = ({k: v for k, v in row.items() if k and v} for row in csv.DictReader(lines))
    return [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) < step]
