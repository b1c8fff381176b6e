"""A kit: the resources of one recipe, read, and the oracles that answer from them."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from lit_adv.attacks import encoder, masked_lm, neighbours, small_masked_lm, stop_words, wordnet
from lit_adv.attacks.encoded import Reader
from lit_adv.attacks.engine import Oracle
from lit_adv.attacks.resources import WANTED, Resources, check, describe
from lit_adv.attacks.speech import TaggerOracle
from lit_adv.attacks.tagger import Tagger
from lit_adv.attacks.tools import Near, Synonyms, Tools
from lit_adv.data.datamodule import TextData
from lit_adv.data.grammar import synonyms
from lit_adv.data.reviews import Reviews

OWN = "the reviews' own groups of synonyms"
INSTEAD = {
    "masked_lm": "trained on the training texts",
    "encoder": "the victim's own body, mean pooled",
    "tagger": "none, so parts of speech are not compared",
    "stop_words": "the English function words of the package",
}


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
        needs: see `check`.
        reader: the victim's.
        data: whose training texts a masked language model is trained on, if there is none.
        seed: of attacks.

    Raises:
        ValueError: a resource is missing or cannot be read.
    """
    check(resources, needs, data)
    wanted = {need.rstrip("?") for need in needs}
    given = {k: v for k, v in vars(resources).items() if k in wanted and v is not None}
    near, known = _words(resources, wanted, isinstance(data, Reviews))
    oracles = _oracles(resources, wanted, reader, data)

    notes = [f"{k}: {INSTEAD[k]}" for k in sorted(wanted - given.keys()) if k in INSTEAD]
    if "neighbours" in wanted and near is None:
        notes.append("neighbours: none, so no words are exchanged for others")
    elif "neighbours" in wanted and near is not None and not near.similarity_known:
        notes.append("neighbours: no cosines known, so min_cosine is not applied")
    if isinstance(data, Reviews):
        notes += [f"{k}: {OWN}" for k in WANTED if k in wanted - given.keys()]

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
    used = [describe(name, path) for name, path in given.items()]
    return Kit(tools=tools, oracles=oracles, used=used, notes=notes)


def _words(
    resources: Resources, wanted: Container[str], generated: bool
) -> tuple[Near | None, Synonyms | None]:
    groups = neighbours.Groups(synonyms()) if generated else None
    near: Near | None = groups
    if "neighbours" in wanted and resources.neighbours is not None:
        near = neighbours.load(resources.neighbours)
    known: Synonyms | None = None if groups is None else AnyKind(groups)
    if "wordnet" in wanted and resources.wordnet is not None:
        known = wordnet.load(resources.wordnet)
    return near, known


def _oracles(
    resources: Resources, wanted: Container[str], reader: Reader, data: TextData
) -> dict[str, Oracle]:
    options: dict[str, Any] = {"max_length": reader.max_length}
    oracles: dict[str, Oracle] = {}
    if "masked_lm" in wanted:
        if resources.masked_lm is None:
            model = small_masked_lm.train(data.splits.train.texts)
        else:
            # Logits over a vocabulary are large: 4096 tokens of BERT's take half a GiB.
            few = min(reader.batch_tokens, 4096)
            model = masked_lm.load(resources.masked_lm, batch_tokens=few, **options)
        model.network.to(reader.device)  # pyright: ignore
        oracles["masked_lm"] = model
    if "encoder" in wanted:
        options |= {"batch_tokens": reader.batch_tokens, "precision": reader.precision}
        if resources.encoder is None:
            oracles["encoder"] = encoder.of_victim(reader)
        else:
            oracles["encoder"] = encoder.load(resources.encoder, reader.device, **options)
    if "tagger" in wanted and resources.tagger is not None:
        oracles["tagger"] = TaggerOracle(Tagger(resources.tagger))
    return oracles


@dataclass
class AnyKind:
    """Synonyms that are the same whatever the part of speech."""

    groups: neighbours.Groups

    def synonyms(self, word: str, pos: str) -> list[str]:
        """Those of the word's group."""
        return self.groups.near(word, len(synonyms()))
