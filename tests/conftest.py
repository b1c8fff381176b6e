"""Settings of all tests."""

import logging
import os
from collections.abc import Iterator

import lightning  # noqa: F401  (it sets the level of its log when it is imported)
import pytest
import torch

# One core is enough for tensors this small; more only get in each other's way.
torch.set_num_threads(1)

# Lightning greets every Trainer with five lines, which would bury what a failing test has to say.
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """No test finds what another has left: Lightning leaves seeds, threads and ranks there."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
