"""Processes that train together, and how they end."""

import socket
from pathlib import Path
from typing import Any

import torch
from distributed.cases import WORLD
from forks import Fork, ends


def launch(
    folder: Path,
    kind: str,
    *,
    module: str = "distributed.train",
    world: int = WORLD,
    seconds: float = 300,
) -> list[dict[str, Any]]:
    """Train all cases of this kind in several processes; returns what each of them ends with.

    Args:
        folder: for what they write: `KIND-RANK.pt` each.
        kind: of the cases.
        module: whose `main` each process runs, with folder and kind.
        world: number of processes.
        seconds: limit of each.
    """
    ranks = [
        Fork(
            f"{module}.main", str(folder), kind, log=folder / f"{kind}-{rank}", nursery=rank % 2,
            environment=environment,
        )
        for rank, environment in enumerate(environments(world))
    ]  # fmt: skip
    for rank in ends(ranks, seconds):
        assert rank.returncode == 0, rank.stdout[-3000:] + rank.stderr[-3000:]
    return [torch.load(folder / f"{kind}-{rank}.pt", weights_only=True) for rank in range(world)]


def environments(world: int) -> list[dict[str, str]]:
    """What each of so many processes is told about the others, as by torchrun."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(world),
        "NODE_RANK": "0",
    }
    return [{**shared, "LOCAL_RANK": str(rank)} for rank in range(world)]


def _free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
