"""Ranks: the further processes of a run on this machine, from their start to their end."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

import __main__

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What Lightning tells the processes that it starts, and leaves behind in this one."""


@contextmanager
def launched(config: Path) -> Iterator[list[Any]]:
    """Processes that Lightning starts inside this block run this composed configuration.

    It would start them by this process's own command line, which in a sweep begins the whole sweep,
    and which does not hold `train` in `lit-adv train`. Yields a list for the trainers, whose
    processes have ended when the block has.

    Args:
        config: written by this process.
    """
    trainers: list[Any] = []
    if "LOCAL_RANK" in os.environ:  # started by Lightning, or by torchrun
        yield trainers
        return
    command, spec = sys.argv, __main__.__spec__
    sys.argv, __main__.__spec__ = [__file__, str(config)], None
    failed = True
    try:
        yield trainers
        failed = False
    finally:
        sys.argv, __main__.__spec__ = command, spec
        for trainer in trainers:
            for process in getattr(trainer.strategy.launcher, "procs", []):
                if failed:
                    process.terminate()
                process.wait()
        if "LOCAL_RANK" in os.environ:
            if dist.is_initialized():
                dist.destroy_process_group()
            for name in VARIABLES:  # or the next run of a sweep would take itself for one of many
                os.environ.pop(name, None)


def main() -> None:
    """Run as one of the further processes; Lightning's own arguments behind it are Hydra's."""
    from omegaconf import DictConfig, OmegaConf

    from lit_adv.cli.errors import report
    from lit_adv.run import run

    cfg = OmegaConf.load(sys.argv[1])
    assert isinstance(cfg, DictConfig)
    report(lambda: run(cfg))


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # not this folder, but the one that holds lit_adv
    main()
