"""Tags against nltk's own: its algorithm written out on toy weights, and what it says of real ones.

Where the real weights are at hand (../shared/lex), tags of whole sentences were taken from nltk
3.10.4.
"""

import gzip
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lit_adv.attacks.tagger import UNIVERSAL, Tagger, universal

LEX = Path(__file__).parents[2] / "../shared/lex"
REAL = LEX / "nltk/averaged_perceptron_tagger_eng.json.gz"

TAGS = ["NN", "VB", "JJ", "RB", "."]
VOCABULARY = [
    "ab",
    "Ab",
    "cab",
    "x",
    "",
    "1999",
    "12",
    "3rd",
    "co-op",
    "-",
    "-ab",
    "U.S.",
    "\u00fcbe",
]

SENTENCES = [
    ("The old lighthouse keeper never liked tourists .", "DT JJ NN NN RB VBD NNS ."),
    (
        "Nobody expected a low-budget 1997 sequel to be this funny !",
        "NN VBD DT JJ CD NN TO VB DT JJ .",
    ),
    (
        "i watched it twice , and both times my popcorn fell on the floor",
        "NN VBD PRP RB , CC DT NNS PRP$ NN VBD IN DT NN",
    ),
    (
        "Does Ms. Okafor's second album really sound better than her first ?",
        "VBZ NNP NNP JJ NN RB VBD JJR IN PRP$ JJ .",
    ),
    (
        "-- 35 minutes in , half of us were asleep ; the rest had left",
        ": CD NNS IN , NN IN PRP VBD RB : DT NN VBD VBN",
    ),
    (
        "she could not have run faster if wolves had chased her",
        "PRP MD RB VB VBN RB IN NNS VBD VBN PRP$",
    ),
    ("qwzx Brillig toves gyred", "NN NNP VBZ VBD"),
]


def _reference_tags(parts: dict[str, Any], tokens: list[str]) -> list[str]:
    """nltk 3.10.4, nltk/tag/perceptron.py: tag, normalize, _get_features and predict."""

    def normalize(word: str) -> str:
        if "-" in word and word[0] != "-":
            return "!HYPHEN"
        if word.isdigit() and len(word) == 4:
            return "!YEAR"
        if word and word[0].isdigit():
            return "!DIGITS"
        return word.lower()

    prev, prev2 = "-START-", "-START2-"
    context = ["-START-", "-START2-", *map(normalize, tokens), "-END-", "-END2-"]
    output = []
    for at, word in enumerate(tokens):
        tag = parts["tagdict"].get(word)
        if not tag:
            i = at + 2
            features = [
                ("bias",),
                ("i suffix", word[-3:]),
                ("i pref1", word[0] if word else ""),
                ("i-1 tag", prev),
                ("i-2 tag", prev2),
                ("i tag+i-2 tag", prev, prev2),
                ("i word", context[i]),
                ("i-1 tag+i word", prev, context[i]),
                ("i-1 word", context[i - 1]),
                ("i-1 suffix", context[i - 1][-3:]),
                ("i-2 word", context[i - 2]),
                ("i+1 word", context[i + 1]),
                ("i+1 suffix", context[i + 1][-3:]),
                ("i+2 word", context[i + 2]),
            ]
            scores = dict.fromkeys(parts["classes"], 0.0)
            for feature in features:
                for label, weight in parts["weights"].get(" ".join(feature), {}).items():
                    scores[label] += weight
            tag = max(parts["classes"], key=lambda label: (scores[label], label))
        output.append(tag)
        prev2, prev = prev, tag
    return output


def _toy(seed: int) -> dict[str, Any]:
    """Weights for half of the features that may come up; coarse ones, for ties."""
    random = Random(seed)
    ends = ["-START-", "-START2-", "-END-", "-END2-"]
    words = [*VOCABULARY, *(word.lower() for word in VOCABULARY), *ends, "!YEAR", "!DIGITS"]
    told = [*TAGS, *ends[:2]]
    names = ["bias", *(f"{a} {b}" for a in ("i-1 tag", "i-2 tag") for b in told)]
    names += [f"i tag+i-2 tag {a} {b}" for a in told for b in told]
    names += [f"i-1 tag+i word {a} {b}" for a in told for b in words]
    for place in ("i word", "i-1 word", "i-2 word", "i+1 word", "i+2 word"):
        names += [f"{place} {word}" for word in [*words, "!HYPHEN"]]
    for place in ("i suffix", "i-1 suffix", "i+1 suffix"):
        names += [f"{place} {word[-3:]}" for word in [*words, "!HYPHEN"]]
    names += [f"i pref1 {word[:1]}" for word in words]
    weights = {
        name: {tag: random.randint(-2, 2) / 10 for tag in random.sample(TAGS, 3)}
        for name in dict.fromkeys(names)
        if random.random() < 0.5
    }
    return {"weights": weights, "tagdict": {"x": "NN", ".": "."}, "classes": TAGS}


def _written(parts: dict[str, Any], folder: Path) -> Path:
    path = folder / "tagger.json"
    path.write_text(json.dumps(parts))
    return path


def _sentences(random: Random, vocabulary: list[str], count: int) -> list[list[str]]:
    return [random.choices(vocabulary, k=random.randint(1, 9)) for _ in range(count)]


@pytest.fixture(scope="module")
def real() -> Tagger:
    if not REAL.is_file():
        pytest.skip("no ../shared/lex: nltk's weights are not at hand")
    return Tagger(REAL)


# ---- tags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_tags_are_nltks_on_random_weights_ties_included(seed: int, tmp_path: Path):
    parts, random = _toy(seed), Random(seed)
    tagger = Tagger(_written(parts, tmp_path))
    seen = set()
    for words in [[], *_sentences(random, VOCABULARY, 100)]:
        tags = tagger.tags(words)
        assert tags == _reference_tags(parts, words)
        seen.update(tags)
    assert seen == set(TAGS)


@pytest.mark.parametrize("text, tags", SENTENCES)
def test_tags_of_real_sentences_are_nltks(text: str, tags: str, real: Tagger):
    assert " ".join(real.tags(text.split())) == tags


def test_what_is_given_back_may_be_changed(tmp_path: Path):
    tagger = Tagger(_written(_toy(0), tmp_path))
    tags = tagger.tags(["ab", "cab"])
    tagger.tags(["ab", "cab"]).clear()
    assert tagger.tags(["ab", "cab"]) == tags


# ---- one word exchanged --------------------------------------------------------------------------


def _agree(
    tagger: Tagger, fresh: Tagger, vocabulary: list[str], random: Random, cases: int
) -> None:
    """Of one word exchanged, by either way, against whole sentences that another tagger is told."""
    changed = 0
    for words in _sentences(random, vocabulary, cases):
        place = random.randrange(len(words))
        candidates = random.sample(vocabulary, 5)
        whole = [[*words[:place], word, *words[place + 1 :]] for word in candidates]
        expected = [fresh.tags(each)[place] for each in whole]
        assert tagger.exchanged(words, place, candidates) == expected
        assert tagger.exchanged(tuple(words), place - len(words), candidates) == expected
        assert [tagger.tag_at(each, place) for each in whole] == expected
        elsewhere = random.randrange(len(words))  # the sentence last tagged begins otherwise
        assert tagger.tag_at(whole[0], elsewhere) == fresh.tags(whole[0])[elsewhere]
        changed += len(set(expected)) > 1
    assert changed > cases // 2


@pytest.mark.parametrize("seed", range(3))
def test_a_word_exchanged_is_tagged_as_in_its_sentence(seed: int, tmp_path: Path):
    path = _written(_toy(seed), tmp_path)
    _agree(Tagger(path), Tagger(path), VOCABULARY, Random(seed), 60)


def test_a_word_exchanged_is_tagged_as_in_its_sentence_by_real_weights(real: Tagger):
    vocabulary = sorted({word for text, _ in SENTENCES for word in text.split()})
    random = Random(0)
    for words in _sentences(random, vocabulary, 80):
        place, candidates = random.randrange(len(words)), random.sample(vocabulary, 4)
        whole = [[*words[:place], word, *words[place + 1 :]] for word in candidates]
        found = real.exchanged(words, place, candidates)
        assert found == [real.tags(each)[place] for each in whole]


def test_tag_at_of_sentences_of_other_lengths(tmp_path: Path):
    path = _written(_toy(1), tmp_path)
    tagger, fresh, random = Tagger(path), Tagger(path), Random(1)
    words = random.choices(VOCABULARY, k=8)
    for told in range(9):
        for length in range(1, 9):
            tagger.tags(words[:told])  # a beginning, or more than that
            for place in range(length):
                assert tagger.tag_at(words[:length], place) == fresh.tags(words[:length])[place]


def test_only_three_tags_are_told_per_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tagger = Tagger(_written(_toy(0), tmp_path))
    words = ["ab"] * 20
    tagger.tags(words)
    told = []
    tell = tagger._tell
    monkeypatch.setattr(tagger, "_tell", lambda each: (told.append(len(each)), tell(each)))
    tagger.exchanged(words, 10, ["cab"] * 7)
    assert told == [7, 7, 7]
    tagger.tag_at(["ab"] * 12 + ["cab"], 12)
    assert told == [7, 7, 7, 1, 1, 1]


def test_no_candidates_no_tags_and_no_such_place_is_an_error(tmp_path: Path):
    tagger = Tagger(_written(_toy(0), tmp_path))
    assert tagger.exchanged(["ab"], 0, []) == []
    with pytest.raises(IndexError):
        tagger.exchanged(["ab"], 1, ["cab"])
    with pytest.raises(IndexError):
        tagger.tag_at([], 0)


# ---- files ---------------------------------------------------------------------------------------


def test_folder_zip_and_gzip_hold_the_same(tmp_path: Path):
    parts = _toy(2)
    packed = tmp_path / "tagger.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(parts).encode(), mtime=0))
    folder = tmp_path / "averaged_perceptron_tagger_eng"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "eng.zip", "w") as archive:
        for part, content in parts.items():
            name = f"averaged_perceptron_tagger_eng.{part}.json"
            (folder / name).write_text(json.dumps(content))
            archive.writestr(f"{folder.name}/{name}", json.dumps(content))
    for path in (packed, str(folder), tmp_path / "eng.zip"):
        tagger = Tagger(path)
        for words in _sentences(Random(2), VOCABULARY, 20):
            assert tagger.tags(words) == _reference_tags(parts, words)


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("none.json", None, "cannot be read: No such file"),
        ("torn.json.gz", gzip.compress(b"{}", mtime=0)[:-9], "cannot be read: "),
        ("plain.json.gz", b"{}", "cannot be read: Not a gzipped file"),
        ("torn.json", b'{"weights": {', "line 1: no JSON"),
        ("latin.json", b'{"weights": "\xfc"}', "no UTF-8"),
        ("list.json", b"[]", "wanted nltk's averaged_perceptron_tagger_eng"),
        ("part.json", b'{"weights": {}}', "wanted nltk's averaged_perceptron_tagger_eng"),
        ("tagger.zip", b"PK", "cannot be read: File is not a zip file"),
        (
            "none.json",
            b'{"weights": {}, "tagdict": {}, "classes": []}',
            "classes: wanted a list of tags",
        ),
        (
            "odd.json",
            b'{"weights": {}, "tagdict": {"a": ["NN"]}, "classes": ["NN"]}',
            "tagdict: wanted {word: tag}",
        ),
        (
            "odd.json",
            b'{"weights": {"bias": {"NN": "1"}}, "tagdict": {}, "classes": ["NN"]}',
            "weights: wanted {feature: {tag: number}}",
        ),
        (
            "odd.json",
            b'{"weights": {"bias": {"VB": 1}}, "tagdict": {}, "classes": ["NN"]}',
            "weights: wanted {feature: {tag: number}}",
        ),
    ],
)
def test_what_is_no_tagger_is_named(name: str, content: bytes | None, said: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        Tagger(path)
    assert str(refused.value).startswith(f"attack.resources.tagger={path}: {said}")
    assert len(str(refused.value).splitlines()) == 1


def test_a_pickle_is_not_read(tmp_path: Path):
    (tmp_path / "averaged_perceptron_tagger.pickle").write_bytes(b"\x80\x02.")
    with zipfile.ZipFile(tmp_path / "tagger.zip", "w") as archive:
        archive.writestr("averaged_perceptron_tagger.pickle", b"\x80\x02.")
    for path in (tmp_path, tmp_path / "tagger.zip"):
        with pytest.raises(ValueError, match="wanted nltk's averaged_perceptron_tagger_eng"):
            Tagger(path)


# ---- universal tags ------------------------------------------------------------------------------


def test_every_tag_of_the_weights_has_a_universal_one(real: Tagger):
    assert {universal(tag) for tag in real._tags} == set(UNIVERSAL.values())
    assert set(real._tags) <= set(UNIVERSAL)


def test_universal_tags_are_those_of_the_map():
    archive = LEX / "nltk/universal_tagset.zip"
    if not archive.is_file():
        pytest.skip("no ../shared/lex: the map of universal tags is not at hand")
    lines = zipfile.ZipFile(archive).read("universal_tagset/en-ptb.map").decode().splitlines()
    assert dict(line.split("\t") for line in lines) == UNIVERSAL
