"""Settings of all tests."""

import logging
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

import lightning  # noqa: F401  (it sets the level of its log when it is imported)
import pytest
import torch
from forks import seed
from lightning.fabric.utilities import registry

# One core is enough for tensors this small; more only get in each other's way.
torch.set_num_threads(1)

# Lightning greets every Trainer with five lines, which would bury what a failing test has to say.
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)


# Every Trainer looks for callbacks of other packages, in the metadata of all that are installed.
registry.entry_points = cache(entry_points)  # pyright: ignore[reportPrivateImportUsage]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """No test finds what another has left: Lightning leaves seeds, threads and ranks there.

    Nor does chance decide: what a test draws without a seed of its own is the same in every run.
    """
    seed()
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
