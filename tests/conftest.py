"""Settings of all tests."""

import logging

import lightning  # noqa: F401  (it sets the level of its log when it is imported)
import torch

# One core is enough for tensors this small; more only get in each other's way.
torch.set_num_threads(1)

# Lightning greets every Trainer with five lines, which would bury what a failing test has to say.
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
