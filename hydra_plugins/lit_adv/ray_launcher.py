"""hydra/launcher=ray: every run a task of Ray's, on this machine or on a cluster.

hydra-ray-launcher holds Ray and cloudpickle to past versions; this takes Ray's own interface.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

log = logging.getLogger(__name__)


class RayLauncher(Launcher):
    """Launches runs as tasks that Ray places where there is room.

    Args:
        address: of a cluster that runs; None = one for this sweep, on this machine.
        num_cpus: per run.
        num_gpus: per run; None = `trainer.devices` where the cluster has any, or else 0.
        init: more arguments of `ray.init`.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        init: Mapping[str, Any] | None = None,
    ) -> None:
        self.address, self.num_cpus, self.num_gpus = address, num_cpus, num_gpus
        self.init = dict(init or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.task_function = hydra_context, task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run these jobs; returns what came of each, in their order."""
        from lit_adv.sweeps import cluster  # here: Hydra looks at all plugins at every start

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        given = (self.hydra_context, self.task_function, self.config, Singleton.get_state())
        with cluster.connected(self.address, self.init):
            needs = cluster.needs(self.num_cpus, self.num_gpus, self.config.trainer.devices)
            log.info(f"Launching {len(job_overrides)} jobs on Ray, each on {needs}")
            numbered = enumerate(job_overrides, start=initial_job_idx)
            results = cluster.run(job, [(*given, list(o), n) for n, o in numbered], needs)
        return [_returned(o, r) for o, r in zip(job_overrides, results, strict=True)]


def job(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    singletons: Any,
    overrides: list[str],
    number: int,
) -> JobReturn:
    """One job, in a process of Ray's."""
    setup_globals()
    Singleton.set_state(singletons)
    swept = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(swept):
        swept.hydra.job.id = f"{swept.hydra.job.name}_{number}"
        swept.hydra.job.num = number
    HydraConfig.instance().set_config(swept)
    return run_job(
        task_function=task,
        config=swept,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )


def _returned(overrides: Sequence[str], result: JobReturn | Exception) -> JobReturn:
    if isinstance(result, JobReturn):
        return result
    failed = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    failed.return_value = result
    return failed
