"""Ranks: the further processes of a run on this machine, from their start to their end."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import __main__

VARIABLES = [
    "LOCAL_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMP_NUM_THREADS",
]
"""What Lightning tells the processes that it starts, and leaves behind in this one."""


@contextmanager
def launched(config: Path) -> Iterator[list[Any]]:
    """Processes that Lightning starts inside this block run this composed configuration.

    It would start them by this process's own command line, which in a sweep begins the whole sweep,
    and which does not hold `train` in `lit-adv train`. Yields a list for the trainers, whose
    processes have ended when the block has.

    Args:
        config: written by this process.

    Raises:
        RuntimeError: one of them has failed where this one has not.
    """
    trainers: list[Any] = []
    if "LOCAL_RANK" in os.environ:  # started by Lightning, or by torchrun
        yield trainers
        return
    command, spec, threads = sys.argv, __main__.__spec__, torch.get_num_threads()
    before = {name: os.environ.get(name) for name in VARIABLES}
    sys.argv, __main__.__spec__ = [__file__, str(config)], None
    failed, codes = True, list[int]()
    try:
        yield trainers
        failed = False
    except SystemExit:  # as all processes agree
        failed = False
        raise
    finally:
        sys.argv, __main__.__spec__ = command, spec
        for trainer in trainers:
            codes += _end(getattr(trainer.strategy.launcher, "procs", []), failed)
        if "LOCAL_RANK" in os.environ:
            if dist.is_initialized():
                dist.destroy_process_group()
            # Or the next run of a sweep would take itself for one of many, with fewer threads.
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            torch.set_num_threads(threads)
    if codes:
        raise RuntimeError(
            f"{len(codes)} of the run's further processes ended with exit code {codes[0]}, after "
            "the first one's work was done; what they said stands above"
        )


def _end(processes: list[Any], failed: bool) -> list[int]:
    """Wait for them; returns the exit codes of those that failed."""
    mine = list(processes)
    processes.clear()  # Lightning watches this list, and would kill this process for their failure
    for process in mine:
        if failed:
            process.kill()  # it may wait for this one, and for nothing else
        process.wait()
    return [process.returncode for process in mine if process.returncode]


def main() -> None:
    """Run as one of the further processes; Lightning's own arguments behind it are Hydra's."""
    from omegaconf import DictConfig, OmegaConf

    from lit_adv.errors import report
    from lit_adv.run import run

    cfg = OmegaConf.load(sys.argv[1])
    assert isinstance(cfg, DictConfig)
    report(lambda: run(cfg))


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # not this folder, but the one that holds lit_adv
    main()
