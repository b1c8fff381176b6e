"""Small tables of every kind, as files of a folder."""

import json
from pathlib import Path
from random import Random
from typing import Any

NAMES = ("ann", "bob", "cleo", "dan")
WORDS = ("saw", "met", "left", "the", "old", "house", "again", "and", "then")

Rows = list[dict[str, Any]]


def rows(kind: str, count: int, seed: int) -> Rows:
    """Random rows of this kind, which can be learnt."""
    return [MAKERS[kind](Random(seed * 1000 + row)) for row in range(count)]


def write(folder: Path, kind: str, **sizes: int) -> Path:
    """Train, validation and test files of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 24, "validation": 8, "test": 8, **sizes}
    for seed, (name, count) in enumerate(sizes.items()):
        lines = [json.dumps(row) for row in rows(kind, count, seed)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def _words(random: Random, least: int = 2) -> list[str]:
    return [random.choice(WORDS) for _ in range(random.randint(least, 6))]


def _tagged(random: Random) -> dict[str, Any]:
    words, tags = [], []
    for word in _words(random):
        words.append(word)
        tags.append("O")
        if random.random() < 0.5:
            words += [random.choice(NAMES), "smith"]
            tags += ["B-per", "I-per"]
    return {"tokens": words, "tags": tags}


def _several(random: Random) -> dict[str, Any]:
    words = _words(random)
    return {"text": " ".join(words), "label": sorted({"old", "house"} & set(words))}


def _choice(random: Random) -> dict[str, Any]:
    right = random.randrange(3)
    choices = ["they left" if i == right else " ".join(_words(random)) for i in range(3)]
    return {"text": " ".join(_words(random)), "choices": choices, "label": right}


def _answered(random: Random) -> dict[str, Any]:
    words = _words(random)
    return {"prompt": " ".join(words), "text": " ".join(reversed(words))}


def _near(random: Random) -> dict[str, Any]:
    words = _words(random)
    other, score = (words, 5.0) if random.random() < 0.5 else (_words(random), random.random())
    texts = {"text": " ".join(words), "text_pair": " ".join(other)}
    return {**texts, "far": " ".join(_words(random)), "score": score}


MAKERS = {
    "token_classification": _tagged,
    "multi_label": _several,
    "multiple_choice": _choice,
    "causal_lm": _answered,
    "contrastive": _near,
}
