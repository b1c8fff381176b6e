"""Loading pretrained networks: quietly, and with errors of one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def loading(said: str) -> Iterator[None]:
    """Transformers reports nothing inside the block, neither progress nor weights left over.

    Args:
        said: what an error's line begins with.

    Raises:
        ValueError: something could not be loaded: `said`, and the first line of the reason.
    """
    logging.disable_progress_bar()
    loud = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{said}: {reason}") from error
    finally:
        logging.set_verbosity(loud)
