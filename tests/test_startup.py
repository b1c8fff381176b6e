"""What a start need not pay: libraries that are imported only where they are used."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "matplotlib")


def imported(code: str) -> list[str]:
    """The heavy libraries that this code imports."""
    report = f"import sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()[-1].split()


def test_the_package_imports_nothing_heavy():
    assert imported("import lit_adv") == []


def test_who_only_reads_runs_draws_nothing():
    """As the process that hands out the jobs of a sweep does, and each of its jobs."""
    assert imported("import lit_adv.sweeps.progress, lit_adv.sweeps.job, lit_adv.reports") == []


@pytest.mark.parametrize("command", ["train", "methods", "soup", "suggest_b", "report"])
def test_help_imports_nothing_heavy(command: str):
    code = f"""
import sys
from lit_adv.cli.{command} import main
sys.argv = ["{command}", "--help"]
try:
    main()
except SystemExit:
    pass"""
    assert imported(code) == []
