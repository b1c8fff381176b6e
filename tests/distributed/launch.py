"""Processes that train together, and how they end."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from distributed.cases import WORLD

TESTS = Path(__file__).parents[1]


def launch(
    folder: Path,
    kind: str,
    *,
    script: str = "distributed.train",
    world: int = WORLD,
    seconds: float = 300,
) -> list[dict[str, Any]]:
    """Train all cases of this kind in several processes; returns what each of them ends with.

    Args:
        folder: for what they write: `KIND-RANK.pt` each.
        kind: of the cases.
        script: module that each process runs, with folder and kind.
        world: number of processes.
        seconds: limit of each.
    """
    shared = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world),
        "NODE_RANK": "0",
    }
    command = [sys.executable, "-m", script, str(folder), kind]
    logs = [(folder / f"{kind}-{rank}.log").open("w+") for rank in range(world)]
    running = [
        subprocess.Popen(
            command, env={**shared, "LOCAL_RANK": str(rank)}, stdout=log, stderr=log, cwd=TESTS
        )
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(seconds) for process in running]
    finally:
        for process in running:
            process.kill()
        said = []
        for log in logs:
            log.seek(0)
            said.append(log.read()[-3000:])
            log.close()
    assert codes == [0] * world, "\n".join(said)
    return [torch.load(folder / f"{kind}-{rank}.pt", weights_only=True) for rank in range(world)]


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
