"""hydra/sweeper=grid: every combination of the values swept; goes on where it ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Grid(Sweeper):
    """Runs all points of a sweep, except those that its folder has the results of.

    Args:
        params: key -> values in Hydra's notation; the command line's replace them.
        points: mappings of keys to values, of which each run has one beside the parameters.
        max_batch_size: most runs that a launcher is given at once; None = all.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        points: Sequence[Mapping[str, Any]] | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        self.params, self.points, self.max_batch_size = params or {}, points or [], max_batch_size

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from lit_adv.sweeps import launchers
        from lit_adv.sweeps.sweep import Sweep

        launcher = launchers.build(hydra_context, task_function, config)
        self._parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self._sweep = Sweep(hydra_context, config, launcher)

    def sweep(self, arguments: list[str]) -> None:
        from lit_adv.sweeps.points import points

        found = points(self.params, self.points, arguments, self._parser.parse_overrides)
        with self._sweep.begun():
            self._sweep.run(found, self.max_batch_size)
