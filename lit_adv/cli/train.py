"""`python train.py` and `lit-adv train`: compose, check, train, test, write results."""

import os
import warnings

import hydra
from omegaconf import DictConfig, OmegaConf

from lit_adv import config
from lit_adv.errors import report
from lit_adv.sweeps import place

FULL_ERROR = "HYDRA_FULL_ERROR"


def main() -> None:
    """Entry point; a user's mistake ends in one line, with HYDRA_FULL_ERROR=1 in a traceback."""
    _quieten()
    if os.environ.get(FULL_ERROR) == "1":
        hydrated(_run)()
        return
    os.environ[FULL_ERROR] = "1"  # Hydra then lets errors through instead of printing paragraphs
    try:
        report(hydrated(_told))
    finally:
        del os.environ[FULL_ERROR]


def _told(cfg: DictConfig) -> float | None:
    """A run by itself tells its own errors, before Hydra adds a line with all its overrides."""
    return _run(cfg) if place.swept() else report(lambda: _run(cfg))


def _run(cfg: DictConfig) -> float | None:
    if place.swept():
        from lit_adv.sweeps.job import work  # here, as below: --help need not load torch

        return work(cfg)
    from lit_adv.run import run

    return run(cfg)


def _quieten() -> None:
    """Of launchers that come with Hydra's plugins, files in conf/ give defaults of our own."""
    said = "\\s*'hydra/launcher/.*' is validated against ConfigStore schema"
    warnings.filterwarnings("ignore", said)


_quieten()  # in processes of a launcher, which begin by importing this
OmegaConf.register_new_resolver("workers", place.workers, replace=True)
hydrated = hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="train")
