"""Processes without their start-up, which is most of what a small run costs.

They are forked off one that has imported everything they need and done nothing else: after a
backward pass on a machine with a GPU, PyTorch could not be forked. From then on each is a process
of its own: it has its own exit, by whatever signal. What it does not prove is that a fresh
interpreter gets that far.
"""

import atexit
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

TESTS = Path(__file__).parent
PRELOADED = ("lightning", "lit_adv.run")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Said to all: where it is not, Lightning sets the number for processes that it starts itself, and
by that call MKL rounds otherwise than by this variable, also where both say one."""


class Fork:
    """A process; its number leads a process group, in which are those that it starts."""

    def __init__(
        self,
        function: str,
        *arguments: str,
        log: Path,
        argv: Sequence[str] = ("",),
        cwd: Path = TESTS,
        nursery: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            function: what it calls, as `module.name`.
            arguments: of the function.
            log: what it prints goes to the files of this name with `.out` and `.err` behind it.
            argv: its command line, from the script on.
            cwd: its working directory.
            nursery: which process it is forked off. In those off different ones, as in fresh
                processes, strings have other hashes and objects other addresses, so that sets are
                in another order: so should be the ranks of a training.
            environment: what is different from this process's.
        """
        self.argv, self.nursery, self.code = argv, nursery, None
        self.log = [log.with_name(f"{log.name}.{stream}") for stream in ("out", "err")]
        self.pid: int = _ask(
            nursery, function=function, arguments=arguments, argv=argv, cwd=str(cwd),
            files=[str(file) for file in self.log], path=sys.path,
            environment={**os.environ, **ONE_THREAD, **(environment or {})},
        )  # fmt: skip

    def wait(self, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """How it ended.

        Raises:
            TimeoutError: it has not, until it was killed.
        """
        ended = self.ended(seconds)
        if ended is None:
            self.kill()
            said = "\n".join(file.read_text() for file in self.log)
            raise TimeoutError(f"{self.argv} ran longer than {seconds} s:\n{said}")
        return ended

    def ended(self, seconds: float) -> subprocess.CompletedProcess[str] | None:
        """How it ended, if it has after this time."""
        if self.code is None:
            self.code = _ask(self.nursery, wait=self.pid, seconds=seconds)
        if self.code is None:
            return None
        out, err = (file.read_text() for file in self.log)
        return subprocess.CompletedProcess(self.argv, self.code, out, err)

    def kill(self) -> None:
        """End it, and what it has started."""
        if self.code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.ended(60)


def ends(processes: Sequence[Fork], seconds: float = 300) -> list[subprocess.CompletedProcess[str]]:
    """How processes that wait for each other end; if one does not, all are ended."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


@cache
def _nursery(number: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=TESTS,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    atexit.register(process.communicate)  # it ends where its input does
    return process


def _ask(number: int, **request: Any) -> Any:
    process = _nursery(number)
    assert process.stdin is not None and process.stdout is not None
    print(json.dumps(request), file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())


def seed(number: int = 0) -> None:
    """All that draws by chance: PyTorch seeds itself by the machine's entropy."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def serve() -> None:
    """Be a nursery; in a fork, be that."""
    for name in PRELOADED:
        import_module(name)
    seed()
    gc.freeze()  # or each fork would copy all of it in its first collection
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = _wait(request["wait"], request["seconds"])
        else:
            answer = os.fork()
            os.setpgid(answer, answer)  # both do: neither is to be too late
            if answer == 0:
                _be(**request)
                return
        print(json.dumps(answer), flush=True)


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        there, status = os.waitpid(pid, os.WNOHANG)
        if there:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def _be(
    function: str,
    arguments: list[str],
    argv: list[str],
    cwd: str,
    files: list[str],
    path: list[str],
    environment: dict[str, str],
) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    for number, file in enumerate((os.devnull, *files)):
        with open(file, "a+b") as opened:
            os.dup2(opened.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv[:], sys.path[:] = argv, path
    # As when it is imported.
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))  # pyright: ignore[reportFunctionMemberAccess]
    module, _, name = function.rpartition(".")
    getattr(import_module(module), name)(*arguments)


if __name__ == "__main__":
    serve()
