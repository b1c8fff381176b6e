"""failure.json: why a run failed, in its folder; the next run there takes it away."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_adv import results
from lit_adv.errors import one_line

NAME = "failure.json"


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """A failure inside this block is recorded in the folder, and goes on.

    An interruption (Ctrl-C, SIGTERM) is no failure: the run can go on from its checkpoint.
    """
    clear(folder)
    try:
        yield
    except Exception as error:
        write(folder, error)
        raise


def write(folder: Path, error: BaseException, reason: str | None = None) -> None:
    """Record why the run of this folder failed.

    Args:
        folder: of the run.
        error: what was raised.
        reason: one line; None = what the error says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = type(error).__name__
    told = reason or one_line(error) or f"{name}: {' '.join(str(error).split())}"
    trace = "".join(traceback.format_exception(error))
    results.write(folder / NAME, {"type": name, "reason": told, "traceback": trace})


def clear(folder: Path) -> None:
    """Forget an earlier failure."""
    (folder / NAME).unlink(missing_ok=True)
