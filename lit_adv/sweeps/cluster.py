"""Ray: connected to, given tasks, asked for what came of them."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use, over the network


@contextmanager
def connected(address: str | None, options: Mapping[str, Any]) -> Iterator[None]:
    """Ray, inside this block.

    Args:
        address: of a cluster that runs; None = one of its own, which ends with the block.
        options: more arguments of `ray.init`.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("hydra/launcher=ray needs Ray: pip install 'lit-adv[ray]'") from error
    own = {} if address else {"include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        # What runs print is in their folders, and their ends are told by the sweep.
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address=address or "local", **{**quiet, **own, **options})
    except ConnectionError as error:
        raise ValueError(f"hydra.launcher.address={address}: no such cluster: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's would end later runs without a checkpoint


def needs(cpus: float, gpus: float | None, devices: Any) -> dict[str, float]:
    """What one run takes of the cluster."""
    import ray

    there = ray.cluster_resources().get("GPU", 0)
    each = devices if isinstance(devices, int) and devices > 0 else 1
    return {"num_cpus": cpus, "num_gpus": (each if there else 0) if gpus is None else gpus}


def run(task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], each: Any) -> list[Any]:
    """What this task returns for all of these arguments, or the error of a process that died.

    Args:
        task: to be run in processes of Ray's.
        arguments: of every call.
        each: what a call takes of the cluster.
    """
    import ray
    from ray.exceptions import RayError

    remote = ray.remote(max_retries=0, **each)(task)
    calls = [remote.remote(*given) for given in arguments]
    results: list[Any] = []
    for call in calls:
        try:
            results.append(ray.get(call))
        except RayError as error:
            results.append(error)
    return results
