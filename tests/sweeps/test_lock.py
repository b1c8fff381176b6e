"""One sweep per folder, whatever becomes of the process that has it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lit_adv.sweeps.lock import sole

HOLD = """
import sys, time
from pathlib import Path
from lit_adv.sweeps.lock import sole
with sole(Path(sys.argv[1]), "a sweep"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_sweep_is_refused_until_the_first_has_ended_or_died(tmp_path: Path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "new")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        said = rf"new: process {process.pid} of .* is at work on a sweep in this folder; wait"
        with pytest.raises(ValueError, match=said), sole(tmp_path / "new", "a sweep"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with sole(tmp_path / "new", "a sweep"), sole(tmp_path / "other", "a sweep"):
        pass
    with sole(tmp_path / "new", "a sweep"):
        pass
