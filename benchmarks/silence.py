"""Lightning without its greetings: what a measurement prints is the measurement."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning  # noqa: F401  (it sets the level of its log when it is imported)


@contextmanager
def silent() -> Iterator[None]:
    """Neither warnings nor greetings of Lightning inside the block."""
    logs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
