"""Lexical resources in files: read by lines or as JSON, refused in one line that names the key."""

import gzip
import json
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

UNREADABLE = (OSError, EOFError, zlib.error)


def lines(path: Path, key: str) -> Iterator[tuple[int, str]]:
    """Numbers, from one on, and lines of a UTF-8 file, also gzipped.

    Args:
        path: the file.
        key: what a message calls it, such as `attack.resources.wordnet`.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with opened(path) as file:
            # Line ends may be Windows'; what else str.splitlines knows stands within words.
            for number, line in enumerate(file, 1):
                yield number, _decoded(line, f"{key}={path}: line {number}")
    except UNREADABLE as error:
        raise ValueError(f"{key}={path}: cannot be read: {said(error)}") from error


def as_json(path: Path, key: str) -> Any:
    """What a JSON file, also gzipped, holds.

    Raises:
        ValueError: it cannot be read, or is no JSON.
    """
    try:
        with opened(path) as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(f"{key}={path}: line {error.lineno}: no JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{key}={path}: no UTF-8") from error
    except UNREADABLE as error:
        raise ValueError(f"{key}={path}: cannot be read: {said(error)}") from error


def opened(path: Path) -> gzip.GzipFile | BufferedReader:
    """A file, unpacked where its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: no UTF-8") from error


def said(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]
