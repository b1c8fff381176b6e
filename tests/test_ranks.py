"""The further processes of a run, to their end."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_adv import ranks


def started(*code: str) -> SimpleNamespace:
    """A trainer whose launcher has started these."""
    procs = [subprocess.Popen([sys.executable, "-c", each]) for each in code]
    return SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=procs)))


def test_a_process_that_fails_after_the_first_one_s_work_fails_the_run(tmp_path: Path):
    said = "1 of the run's further processes ended with exit code 3"
    with (
        pytest.raises(RuntimeError, match=said),
        ranks.launched(tmp_path / "config.yaml") as trainers,
    ):
        trainers.append(started("exit(3)", "pass"))
    with ranks.launched(tmp_path / "config.yaml") as trainers:
        trainers.append(started("pass"))


def test_the_first_one_s_own_failure_is_what_is_told(tmp_path: Path):
    with (
        pytest.raises(ValueError, match="own"),
        ranks.launched(tmp_path / "config.yaml") as trainers,
    ):
        trainers.append(started("import time; time.sleep(60)"))
        raise ValueError("own")
