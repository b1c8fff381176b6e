"""The report at the end of a multirun, as a Hydra callback."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class AtEnd(Callback):
    """Writes the report of all runs in the sweep's folder, and says where it is."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from lit_adv.reports import write  # here: a single run need not load matplotlib

        folder = Path(config.hydra.sweep.dir)
        try:
            print(f"report: {write([folder])}")
        except ValueError as error:  # the runs are done, whatever there is to be said of them
            print(f"no report: {error}", file=sys.stderr)
