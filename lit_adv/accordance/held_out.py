"""Held-out batches: a few examples of the validation data, the same in every reading."""

import math
from itertools import islice
from typing import Any

import lightning as L

from lit_adv import processes
from lit_adv.nested import size, some
from lit_adv.random_state import RandomState

BATCHES = 8


def held_out(trainer: L.Trainer, module: L.LightningModule, examples: int) -> list[Any]:
    """Parts of evenly spaced batches of this process's first validation loader.

    Of a loader that does not know its length: the first batches. The validations of the training
    find the random streams of the loader as they would have without this.

    Args:
        trainer: of a training that has started.
        module: moves batches to where it is.
        examples: about so many, of all processes together.

    Raises:
        ValueError: there is no validation data.
    """
    if trainer.enable_validation and trainer.val_dataloaders is None:
        # As Lightning does, but not before the first epoch that ends with a validation.
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    there = 0 if loader is None else trainer.num_val_batches[0]
    if loader is None or not there:
        raise ValueError(
            "accordance.against=validation: needs validation data, and there is none; give some "
            "(trainer.limit_val_batches above 0), or set accordance.against=train"
        )
    wanted = int(min(BATCHES, there))
    places = [n if math.isinf(there) else n * int(there) // wanted for n in range(wanted)]
    streams = (getattr(part, "generator", None) for part in (loader, getattr(loader, "sampler", 0)))
    now = RandomState(module.device, *(stream for stream in streams if stream is not None))
    try:
        batches = [b for n, b in enumerate(islice(loader, places[-1] + 1)) if n in places]
    finally:
        now.rewind()
    rows = math.ceil(examples / wanted / processes.count())
    moved = (_moved(trainer, module, batch) for batch in batches)
    return [some(batch, list(range(min(rows, size(batch)))), size(batch)) for batch in moved]


def _moved(trainer: L.Trainer, module: L.LightningModule, batch: Any) -> Any:
    """A batch as Lightning would hand it over."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
