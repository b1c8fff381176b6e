"""What a console need not hear of."""

import logging
import warnings

from transformers.utils.logging import disable_progress_bar


def quieten() -> None:
    """Leave the console to the progress bar, the table, and warnings that a user can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    disable_progress_bar()  # of saving a model, which takes a moment
    for message in (
        "Experiment logs directory",  # the run's own folder
        "The '.*_dataloader' does not have many workers",  # tokenised text needs none
        "`isinstance\\(treespec, LeafSpec\\)",  # between lightning and torch
        "You defined a `validation_step` but have no",  # auxiliary models need none
        "The number of training batches",  # fewer than log_every_n_steps
        "Checkpoint directory .* exists and is not empty",  # a run that goes on in its own folder
        "The dirpath has changed",  # a resumed run has one of its own, and takes the best along
    ):
        warnings.filterwarnings("ignore", message=message)
