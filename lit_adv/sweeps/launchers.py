"""Launchers: built, or refused with what to install."""

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lit_adv.sweeps import place

EXTRAS = {"joblib": "sweeps", "submitit_local": "sweeps", "submitit_slurm": "sweeps", "ray": "ray"}
"""Launchers, and the extras of this package that bring what they need."""


def build(context: HydraContext, task: TaskFunction, config: DictConfig) -> Launcher:
    """The launcher of this configuration, set up.

    Raises:
        ValueError: its plugin is not installed.
    """
    try:
        return Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
    except (RuntimeError, ImportError) as error:
        name = config.hydra.runtime.choices.get("hydra/launcher")
        if name not in EXTRAS:
            raise
        raise ValueError(
            f"hydra/launcher={name}: {error}; pip install 'lit-adv[{EXTRAS[name]}]'"
        ) from error


def at_once(launcher: Launcher) -> int:
    """How many runs it works on at the same time, unless it is told otherwise."""
    return 1 if type(launcher).__name__ == "BasicLauncher" else place.workers()


def most(launcher: Launcher) -> int | None:
    """How many runs it should be given at once; None = it minds that itself."""
    return place.workers() if type(launcher).__name__ == "LocalLauncher" else None
