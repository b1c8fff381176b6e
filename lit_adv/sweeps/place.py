"""Where a run of a sweep works: on which accelerator, with how many threads."""

import os
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

BESIDE = ("JoblibLauncher", "LocalLauncher", "SlurmLauncher", "RayLauncher")
"""Launchers whose runs work beside each other."""
SHARING = ("JoblibLauncher", "LocalLauncher")
"""Launchers that start processes on this machine and leave it to them to share it."""

_claimed: list[FileLock] = []  # held as long as this process lives


def workers() -> int:
    """How many runs this machine takes at once: one per accelerator, or else one per core."""
    return len(devices()) or cores()


def cores() -> int:
    """Of the processor, as far as this process may use them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def devices() -> list[str]:
    """Names of the accelerators that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch  # here: a command line that starts nothing need not load it

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def swept() -> bool:
    """Whether Hydra runs this as one of many."""
    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


def first() -> bool:
    """Whether this is the first of the processes that a cluster has started for one run."""
    return os.environ.get("SLURM_PROCID", "0") == "0"


def settle(hydra: HydraConf) -> bool:
    """Take a share of this machine; returns whether other runs work beside this one."""
    launcher = str(hydra.launcher["_target_"]).rpartition(".")[2]  # pyright: ignore
    if launcher in SHARING and not _claimed and (names := devices()):
        name = claim(names, Path(str(hydra.sweep.dir)) / ".accelerators")
        os.environ["CUDA_VISIBLE_DEVICES"] = name
    if launcher == "LocalLauncher":  # joblib and Ray divide the threads themselves
        import torch

        torch.set_num_threads(max(1, cores() // workers()))
    return launcher in BESIDE


def claim(names: list[str], folder: Path) -> str:
    """The accelerator that the fewest processes of this sweep have; this one's until it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    for turn in range(1024):
        for name in names:
            lock = FileLock(folder / f"{name.replace('/', '_')}.{turn}")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            _claimed.append(lock)
            return name
    raise ValueError(f"{folder}: more than 1024 processes on each of {', '.join(names)}")
