"""Tokenised splits kept in files, which processes and machines may share."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from lit_adv.data.splits import Split
from lit_adv.data.tokenised import COLUMNS, Tokenised
from lit_adv.kinds.kind import Kind
from lit_adv.kinds.labels import Labels

FORMAT = 3
"""Of the files; another number where they change."""


class Cache:
    """Tokenises splits, or takes them from their files.

    Of processes that start together one tokenises, the others wait for its file. A file appears
    whole, under its name only when it is finished.

    Args:
        tokenizer: of the texts.
        max_length: longest example, in tokens; the rest is cut off.
        folder: of the files; None = `$LIT_ADV_CACHE` or `~/.cache/lit_adv`.
        kind: what the rows teach, which decides about their tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        folder: str | None,
        kind: Kind | None = None,
    ) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._kind = kind or Labels()
        self._key = f"{FORMAT} {self._kind.name} {max_length} {_key(tokenizer)}"
        home = folder or os.environ.get("LIT_ADV_CACHE")
        self._folder = Path(home) if home else Path.home() / ".cache" / "lit_adv"

    def tokenised(self, split: Split) -> Tokenised:
        """The split, and from now on its file."""
        path = self._folder / f"{self._fingerprint(split)}.npz"
        if path.exists():
            return _read(path)
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")
        with FileLock(lock):
            try:
                return _read(path) if path.exists() else self._written(split, path)
            finally:
                lock.unlink(missing_ok=True)  # whoever comes later finds the split itself

    def _written(self, split: Split, path: Path) -> Tokenised:
        data = self._kind.tokenised(split, self._tokenizer, self._max_length)
        part = path.with_suffix(f".{uuid4().hex}.part")  # process numbers repeat between machines
        arrays: dict[str, Any] = {"starts": data.starts, "texts": data.texts, **data.columns}
        if data.labels is not None:
            arrays["labels"] = data.labels
        try:
            with part.open("wb") as file:
                np.savez(file, **arrays)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return data

    def _fingerprint(self, split: Split) -> str:
        digest = hashlib.sha256(self._key.encode())
        for column in (split.texts, split.pairs or [], split.labels):
            digest.update(f"{len(column)} ".encode())
            for value in column:
                digest.update(f"{value}\0".encode())
        return digest.hexdigest()[:32]


def _read(path: Path) -> Tokenised:
    with np.load(path, allow_pickle=False) as saved:
        columns = {name: saved[name] for name in COLUMNS if name in saved}
        labels = saved.get("labels")
        return Tokenised(columns, saved["starts"], labels, int(saved["texts"]))


def _key(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokens depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(tokenizer)
    state = json.loads(backend.to_str())
    # The last use has left them there; the next one sets its own.
    del state["truncation"], state["padding"]
    special = [getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep")]
    return json.dumps([tokenizer.truncation_side, tokenizer.model_input_names, special, state])
