"""`python train.py` and `lit-adv train`: compose, check, train, test, write results."""

import os

import hydra
from omegaconf import DictConfig

from lit_adv import config
from lit_adv.cli.errors import report


@hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="train")
def job(cfg: DictConfig) -> float | None:
    """One run of a composed configuration."""
    from lit_adv.run import run  # here: --help need not load torch

    return run(cfg)


def main() -> None:
    """Entry point."""
    # Hydra then lets errors through instead of printing paragraphs; the variable's own meaning, a
    # whole traceback, is kept for those who set it.
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        job()
    else:
        os.environ["HYDRA_FULL_ERROR"] = "1"
        report(job)
