"""One line for the person at the keyboard: which key, which value, what to do."""

import re
import sys
from collections.abc import Callable
from typing import Any

USERS = (ValueError, FloatingPointError, FileNotFoundError)
"""What a user can mend, as are files that an OSError names; the rest keeps its traceback."""


def one_line(error: BaseException) -> str | None:
    """The message for this error, or None if it is not a user's to mend."""
    from hydra.errors import HydraException, InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from omegaconf.errors import OmegaConfBaseException

    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    message = " ".join(str(error).split())
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _composition(message)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (*USERS, MisconfigurationException)):
        return message
    return None


def _composition(message: str) -> str:
    """Hydra's paragraphs, shortened to what is wrong and what there is.

    >>> said = "Could not find 'method/smrt' Available options in 'method': fgm pgd"
    >>> _composition(said)
    'method=smrt: no such choice; choose one of fgm, pgd'
    """
    group = re.search(r"Could not find '(.+)/([^'/]+)'.*?Available options in '.+?': (.+)", message)
    if group:
        listed = group[3].partition("Config search path")[0].split()
        options = ", ".join(option for option in listed if "/" not in option)
        return f"{group[1]}={group[2]}: no such choice; choose one of {options}"
    key = re.search(r"Could not override '(.+?)'", message)
    if key:
        return f"{key[1]}: unknown key; --cfg job shows those there are"
    return message.removesuffix("Set the environment variable HYDRA_FULL_ERROR=1")


def report(job: Callable[[], Any]) -> Any:
    """Run the job; end a user's mistake with one line and exit code 1."""
    try:
        return job()
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
