"""`python train.py` and `lit-adv train`: compose, check, train, test, write results."""

import os

import hydra
from omegaconf import DictConfig

from lit_adv import config
from lit_adv.cli.errors import report

FULL_ERROR = "HYDRA_FULL_ERROR"


def main() -> None:
    """Entry point; a user's mistake ends in one line, with HYDRA_FULL_ERROR=1 in a traceback."""
    if os.environ.get(FULL_ERROR) == "1":
        hydrated(_run)()
        return
    os.environ[FULL_ERROR] = "1"  # Hydra then lets errors through instead of printing paragraphs
    try:
        # Twice: errors of the run are told before Hydra adds a line with all overrides of its own.
        report(hydrated(lambda cfg: report(lambda: _run(cfg))))
    finally:
        del os.environ[FULL_ERROR]


hydrated = hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="train")


def _run(cfg: DictConfig) -> float | None:
    from lit_adv.run import run  # here: --help need not load torch

    return run(cfg)
