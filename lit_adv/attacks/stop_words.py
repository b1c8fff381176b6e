"""Function words, which attacks leave alone."""

from importlib.resources import as_file, files
from pathlib import Path

from lit_adv.attacks import reading

KEY = "attack.resources.stop_words"


def load(path: str | None = None) -> frozenset[str]:
    """The words of a file, in lower case: one a line; empty lines and those with # are left out.

    Args:
        path: UTF-8 text, also .gz; None = the list that comes with lit_adv.

    >>> sorted(load())[:4]
    ['a', 'about', 'above', 'after']

    Raises:
        ValueError: the file cannot be read, or a line holds more than a word.
    """
    if path is not None:
        return _read(Path(path))
    with as_file(files("lit_adv.attacks") / "stop_words.txt") as packaged:
        return _read(packaged)


def _read(path: Path) -> frozenset[str]:
    words = set()
    for number, line in reading.lines(path, KEY):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if len(word.split()) > 1:
            raise ValueError(f"{KEY}={path}: line {number}: {word!r}: wanted one word a line")
        words.add(word.lower())
    return frozenset(words)
