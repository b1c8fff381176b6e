"""Sweeps that tests only read, made once."""

from pathlib import Path

import pytest
import sweeps

from lit_adv import reports
from lit_adv.reports.report import read
from lit_adv.reports.sweep import Sweep


@pytest.fixture(scope="session")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read([sweeps.flooded(tmp_path_factory.mktemp("flooded") / "sweep")])


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read([sweeps.grid(tmp_path_factory.mktemp("grid") / "sweep")])


@pytest.fixture(scope="session")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read([sweeps.methods(tmp_path_factory.mktemp("methods") / "sweep")])


@pytest.fixture(scope="session")
def report(flooded: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the flooded sweep, in another folder than its runs."""
    return reports.write([flooded.runs[0].folder.parent], tmp_path_factory.mktemp("report"))
