"""hydra/sweeper=optuna: a search over values and intervals; goes on where it ended."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSearch(Sweeper):
    """Runs the trials that Optuna asks for, as far as its storage does not know them.

    Args:
        params: key -> values in Hydra's notation; the command line's replace them.
        options: see `lit_adv.sweeps.options.Options`.
    """

    def __init__(self, params: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.params, self.options = params or {}, options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        if find_spec("optuna") is None:
            raise ValueError("hydra/sweeper=optuna needs Optuna: pip install 'lit-adv[sweeps]'")
        from lit_adv.sweeps import launchers
        from lit_adv.sweeps.options import options
        from lit_adv.sweeps.sweep import Sweep

        self._options = options(self.options)
        launcher = launchers.build(hydra_context, task_function, config)
        self._parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self._sweep = Sweep(hydra_context, config, launcher)

    def sweep(self, arguments: list[str]) -> None:
        from lit_adv.sweeps.search import Search
        from lit_adv.sweeps.space import space

        found = space(self.params, arguments, self._parser.parse_overrides)
        Search(self._sweep, found, self._options).run()
