"""Resources of attacks: named by path or hub name, checked at start, described in results."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lit_adv.data.datamodule import TextData
from lit_adv.data.reviews import Reviews

WANTED = {
    "neighbours": "word vectors or a table of neighbours: attack.resources.neighbours=FILE",
    "wordnet": "WordNet: attack.resources.wordnet=FOLDER or FILE",
}


@dataclass(kw_only=True)
class Resources:
    """What attacks use beside the victim; for each None there is a default, or it is done without.

    Args:
        neighbours: word vectors (`word v1 v2 ...`, .gz too), or a table {word: [nearest first]} in
            JSON (.gz too); None = on the generated reviews their own groups of synonyms.
        wordnet: folder of WordNet's data.noun, ..., or a table of word, part of speech, synonyms
            (.tsv, .gz); None = as for neighbours.
        masked_lm: folder or hub name of a masked language model; None = one trained on the
            training texts in a minute, and kept.
        encoder: folder or hub name of a network, mean pooled; None = the victim's own.
        tagger: nltk's averaged perceptron, its folder or file; None = parts of speech are not
            looked at.
        stop_words: one per line; None = the English ones that come with the package.
    """

    neighbours: str | None = None
    wordnet: str | None = None
    masked_lm: str | None = None
    encoder: str | None = None
    tagger: str | None = None
    stop_words: str | None = None


def check(resources: Resources, needs: Sequence[str], data: TextData) -> None:
    """Refuse what can be seen to be missing, before anything is trained or read.

    Args:
        resources: their names.
        needs: names of those that an attack uses; `neighbours?` it can do without.
        data: the generated reviews have synonyms of their own.

    Raises:
        ValueError: a resource is not named, or not there.
    """
    for need in needs:
        name = need.rstrip("?")
        path = getattr(resources, name)
        if path is None and need in WANTED and not isinstance(data, Reviews):
            raise ValueError(f"attack.resources.{name}=null: this attack needs {WANTED[name]}")
        # What looks like a name on the hub is left to those who load it.
        file = name not in ("encoder", "masked_lm") or str(path)[:1] in (".", "/", "~")
        if path is not None and file and not Path(path).exists():
            raise ValueError(f"attack.resources.{name}={path}: no such file or folder")


def describe(name: str, path: str | Path) -> dict[str, Any]:
    """A resource as results name it; the sha256 of a folder is that of its weights, or files."""
    place = Path(path)
    within = sorted(place.glob("*.safetensors")) or sorted(place.rglob("*"))
    files = [file for file in within if file.is_file()] if place.is_dir() else [place]
    if not place.exists():  # a hub name, or an error that its reader will tell
        return {"name": name, "path": str(path), "sha256": None}
    digest = sha256()
    for file in files:
        digest.update(file.read_bytes())
    return {"name": name, "path": str(path), "sha256": digest.hexdigest()}
