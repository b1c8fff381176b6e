"""What has been done of a series of attacks: a line per example, so that it can go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_adv import results


class Progress:
    """The folder of a set of attacks while it runs.

    Args:
        folder: see `claim`.
        part: which of several processes this is.
    """

    def __init__(self, folder: Path, part: int = 0) -> None:
        self.folder = folder
        self._lines = folder / f"attack.part{part}.jsonl"
        # A process that was killed may have left half a line.
        self._begin = "\n" if self._lines.exists() else ""

    def records(self) -> dict[int, dict[str, Any]]:
        """What is done, of all processes, by row; a line that was cut off has not been done."""
        found: dict[int, dict[str, Any]] = {}
        for path in [self.folder / "attack.jsonl", *sorted(self.folder.glob("attack.part*.jsonl"))]:
            if path.exists():
                # Not by splitlines: texts may hold separators that JSON leaves as they are.
                for line in path.read_text(encoding="utf-8").split("\n"):
                    try:
                        record = json.loads(line)
                    except json.JSONDecodeError:
                        continue
                    found.setdefault(record["index"], record)
        return found

    def add(self, record: Mapping[str, Any]) -> None:
        """One more example is done."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(self._begin + json.dumps(record, ensure_ascii=False) + "\n")
        self._begin = ""

    def finish(self, rows: list[int]) -> list[dict[str, Any]]:
        """All records in the order of the sample, in one file."""
        found = self.records()
        records = [found[row] for row in rows]
        path = self.folder / "attack.jsonl"
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        part.replace(path)
        for lines in self.folder.glob("attack.part*.jsonl"):
            lines.unlink()
        return records


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder that of attacks by these settings, on all of which their records depend.

    Raises:
        ValueError: it holds attacks by others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "attack.settings.json"
    settings = json.loads(json.dumps(settings))
    if known.exists():
        refuse_others(folder, json.loads(known.read_text()), settings)
    else:
        results.write(known, dict(settings))


def refuse_others(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError if two sets of settings differ; the line names the first that does."""
    old, new = flat(before), flat(now)
    for key in [*old, *new]:
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{folder}: holds attacks with {key}={old.get(key)}, now {new.get(key)}; give "
                "another folder by attack.output=FOLDER, or delete this one"
            )


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Values of nested dictionaries by their dotted keys.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    if not isinstance(tree, Mapping):
        return {path: tree}
    parts = (flat(v, f"{path}.{k}" if path else str(k)).items() for k, v in tree.items())
    return {key: value for part in parts for key, value in part}
