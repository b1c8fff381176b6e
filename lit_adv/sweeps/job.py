"""One run of a sweep, in whatever process it runs."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lit_adv.reports.reading import as_json
from lit_adv.sweeps import lock, outcome, place


class Failed(Exception):
    """A run has failed, for the reason that stands in its folder."""


def work(cfg: DictConfig) -> float | None:
    """Run it, going on from its own last checkpoint where there is one; returns its metric.

    Raises:
        Failed: whatever was wrong; a launcher can carry no other error between processes.
    """
    beside = place.settle(HydraConfig.get())
    from lit_adv.run import run  # here: a process's threads and accelerator are settled before

    folder = Path(cfg.output_dir)
    if not place.first():  # of several that a cluster has started for this run
        return run(cfg)
    with lock.in_turn(folder):
        if outcome.state(folder) in ("finished", "pruned"):  # by a process that outlived its sweep
            return None
        last = folder / "checkpoints" / "last.ckpt"
        if last.exists():
            cfg.ckpt_path = str(last)
        reason = None
        with _own_output(folder / "output.txt") if beside else nullcontext():
            if beside:
                cfg.trainer.enable_progress_bar = False
            try:
                return run(cfg)
            except Exception:
                reason = as_json(folder / "failure.json").get("reason", "no reason given")
    _free()  # here, where no exception holds on to the run
    raise Failed(reason)


@contextmanager
def _own_output(path: Path) -> Iterator[None]:
    """What runs beside each other print goes into a file of each."""
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def _free() -> None:
    gc.collect()
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
