"""Resources of attacks: named by path or hub name, checked at start, described in results."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lit_adv.attacks import encoder, masked_lm, neighbours, small_masked_lm, stop_words, wordnet
from lit_adv.attacks.encoded import Reader
from lit_adv.attacks.engine import Oracle
from lit_adv.attacks.speech import TaggerOracle
from lit_adv.attacks.tagger import Tagger
from lit_adv.attacks.tools import Tools
from lit_adv.data.datamodule import TextData
from lit_adv.data.grammar import synonyms
from lit_adv.data.reviews import Reviews

WANTED = {
    "neighbours": "word vectors or a table of neighbours: attack.resources.neighbours=FILE",
    "wordnet": "WordNet: attack.resources.wordnet=FOLDER or FILE",
}
INSTEAD = {
    "neighbours": "the reviews' own groups of synonyms",
    "wordnet": "the reviews' own groups of synonyms",
    "masked_lm": "trained on the training texts",
    "encoder": "the victim's own body, mean pooled",
    "tagger": "none, so parts of speech are not compared",
    "stop_words": "the English function words of the package",
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


@dataclass(kw_only=True)
class Kit:
    """Resources, read.

    Args:
        tools: what attacks are handed.
        oracles: whom they may ask, beside the victim.
        used: name, path and sha256 of each resource, for results.
        notes: what was done without.
    """

    tools: Tools
    oracles: dict[str, Oracle]
    used: list[dict[str, Any]]
    notes: list[str]


def gather(
    resources: Resources, needs: Sequence[str], reader: Reader, data: TextData, *, seed: int
) -> Kit:
    """Read what these needs call for.

    Args:
        resources: their names.
        needs: names of those that an attack uses; `neighbours?` it can do without.
        reader: the victim's.
        data: whose training texts a masked language model is trained on, if there is none.
        seed: of attacks.

    Raises:
        ValueError: a resource is missing or cannot be read.
    """
    named = {k: v for k, v in vars(resources).items() if v is not None}
    wanted = {need.rstrip("?") for need in needs}
    used = [describe(name, path) for name, path in named.items() if name in wanted]
    generated = isinstance(data, Reviews)
    for need in needs:
        if need in ("neighbours", "wordnet") and need not in named and not generated:
            raise ValueError(f"attack.resources.{need}=null: this attack needs {WANTED[need]}")
    notes = [
        f"{name}: {INSTEAD[name]}"
        for name in sorted(wanted - named.keys())
        if name in INSTEAD and (generated or name not in ("neighbours", "wordnet"))
    ]

    groups = neighbours.Groups(synonyms()) if generated else None
    near = groups
    if "neighbours" in wanted and resources.neighbours is not None:
        near = neighbours.load(resources.neighbours)
    known = None if groups is None else AnyKind(groups)
    if "wordnet" in wanted and resources.wordnet is not None:
        known = wordnet.load(resources.wordnet)
    if "neighbours" in wanted and near is not None and not near.similarity_known:
        notes.append("neighbours: no cosines known, so min_cosine is not applied")

    options: dict[str, Any] = {"max_length": reader.max_length, "batch_tokens": reader.batch_tokens}
    oracles: dict[str, Oracle] = {}
    if "masked_lm" in wanted:
        if resources.masked_lm is None:
            oracles["masked_lm"] = small_masked_lm.train(data.splits.train.texts)
        else:
            oracles["masked_lm"] = masked_lm.load(
                resources.masked_lm, device=reader.device, **options
            )
    options["precision"] = reader.precision
    if "encoder" in wanted and resources.encoder is None:
        oracles["encoder"] = encoder.of_victim(reader)
    elif "encoder" in wanted and resources.encoder is not None:
        oracles["encoder"] = encoder.load(resources.encoder, reader.device, **options)
    if "tagger" in wanted and resources.tagger is not None:
        oracles["tagger"] = TaggerOracle(Tagger(resources.tagger))

    unknown, mask = (getattr(reader.tokenizer, f"{kind}_token") for kind in ("unk", "mask"))
    hidden = str(mask or unknown or "")
    tools = Tools(
        neighbours=near,
        wordnet=known,
        stop_words=stop_words.load(resources.stop_words),
        oracles=frozenset({"victim", "exact", *oracles}),
        unknown=str(unknown or hidden),
        mask=hidden,
        seed=seed,
    )
    return Kit(tools=tools, oracles=oracles, used=used, notes=notes)


@dataclass
class AnyKind:
    """Synonyms that are the same whatever the part of speech."""

    groups: neighbours.Groups

    def synonyms(self, word: str, pos: str) -> list[str]:
        """Those of the word's group."""
        return self.groups.near(word, len(synonyms()))


def describe(name: str, path: str | Path) -> dict[str, Any]:
    """A resource as results name it; the sha256 of a folder is that of its files in their order."""
    place = Path(path)
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    if not place.exists():  # a hub name, or an error that its reader will tell
        return {"name": name, "path": str(path), "sha256": None}
    digest = sha256()
    for file in files:
        digest.update(file.read_bytes())
    return {"name": name, "path": str(path), "sha256": digest.hexdigest()}
