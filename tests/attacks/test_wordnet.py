"""Synonyms out of either kind of file, in any form of the word, in the order of senses."""

import gzip
from pathlib import Path

import pytest

from lit_adv.attacks import wordnet
from lit_adv.attacks.wordnet import WordNet

LEX = Path(__file__).parents[2] / "../shared/lex/wordnet"

SYNONYMS = """\
March\tn\tMar
Polish\tn\tPolish language
film\tn\tmovie|moving picture|flick|movie
film\tv\tshoot|take
good\ta\tfull|best
glass\tn\tdrinking_glass|spyglass
happy\ta\tglad|well-chosen
march\tn\tmarching|borderland
march\tv\tprocess
run\tv\tgo|Run|lead
run\tn\ttally
shoot\tv\tfilm|take
well\ta\tgood
well\tr\tgood
man\tn\tadult male|serviceman
wolf\tn\tbeast
hop\tv\tjump
hope\tv\ttrust
try\tv\tseek
axe\tn\thatchet
axis\tn\tbloc
"""
IRREGULAR = """\
axes\taxe\tn
axes\taxis\tn
better\tgood\ta
better\twell\ta
happier\thappy\ta
ran\trun\tv
"""

LICENCE = "  1 This software and database is being provided to you\n  2 freely.  \n"
DATA = {
    "noun": "00000001 04 n 02 dog 0 domestic_dog 0 001 @ 00000003 n 0000 | it barks | and bites\n"
    "00000002 18 n 03 cad 0 Dog 0 hound 2 000 | someone else\n"
    "00000003 05 n 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 k 0 000 | eleven\n",
    "verb": "00000004 38 v 02 chase 0 dog 0 001 @ 00000005 v 0000 01 + 08 00 | follow\n",
    "adj": "00000006 00 a 01 abounding 0 000 | full\n"
    "00000007 00 s 02 abounding 0 galore(ip) 0 001 & 00000006 a 0000 | in great numbers\n",
    "adv": "00000008 02 r 02 quick 0 quickly 0 000 | fast\n",
}
INDEX = {"noun": "dog n 2 1 @ 2 1 00000002 00000001  \ncad n 1 0 1 0 00000002  \n"}
EXCEPTIONS = {"noun": "dogges dog\n", "verb": "dogging dog\n"}


def _listed(folder: Path, irregular: str | None = IRREGULAR, packed: bool = False) -> WordNet:
    name = "my_synonyms.tsv" + (".gz" if packed else "")
    for file, text in ((name, SYNONYMS), (name.replace("synonyms", "irregular_forms"), irregular)):
        if text is not None:
            content = text.encode()
            (folder / file).write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return wordnet.load(folder / name)


def _princeton(folder: Path, index: bool = True) -> WordNet:
    for name, text in DATA.items():
        (folder / f"data.{name}").write_text(LICENCE + text)
    for name, text in INDEX.items():
        if index:
            (folder / f"index.{name}").write_text(LICENCE + text)
    for name, text in EXCEPTIONS.items():
        (folder / f"{name}.exc").write_text(text)
    return wordnet.load(str(folder))


# ---- a list of synonyms --------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "word, pos, expected",
    [
        ("film", "NOUN", ["movie", "flick"]),
        ("Film", "NOUN", ["Movie", "Flick"]),
        ("FILM", "VERB", ["SHOOT", "TAKE"]),
        ("films", "NOUN", ["movie", "flick"]),
        ("filming", "VERB", ["shoot", "take"]),
        ("glasses", "NOUN", ["spyglass"]),
        ("happier", "ADJ", ["glad", "well-chosen"]),
        ("run", "VERB", ["go", "lead"]),
        ("ran", "VERB", ["go", "lead"]),
        ("ran", "NOUN", []),
        ("runs", "NOUN", ["tally"]),
        ("march", "NOUN", ["marching", "borderland", "Mar"]),
        ("March", "NOUN", ["Marching", "Borderland", "Mar"]),
        ("better", "ADJ", ["full", "best"]),
        ("better", "ADV", []),
        ("axes", "NOUN", ["hatchet", "bloc"]),
        ("men", "NOUN", ["serviceman"]),
        ("wolves", "NOUN", ["beast"]),
        ("tries", "VERB", ["seek"]),
        ("hoping", "VERB", ["trust", "jump"]),
        ("polish", "NOUN", []),
        ("", "NOUN", []),
        ("s", "NOUN", []),
        ("unheard", "NOUN", []),
        ("film", "DET", []),
        ("film", "n", []),
        ("film", "", []),
    ],
)
def test_synonyms_of_a_list(word: str, pos: str, expected: list[str], packed: bool, tmp_path: Path):
    assert _listed(tmp_path, packed=packed).synonyms(word, pos) == expected


def test_without_irregular_forms_the_rules_remain(tmp_path: Path):
    words = _listed(tmp_path, irregular=None)
    assert words.synonyms("ran", "VERB") == []
    assert words.synonyms("axes", "NOUN") == ["hatchet"]
    assert words.synonyms("tried", "VERB") == []


def test_a_form_on_the_list_is_left_to_the_list(tmp_path: Path):
    words = _listed(tmp_path, irregular="films\trun\tn\n")
    assert words.synonyms("films", "NOUN") == ["tally"]
    assert words.synonyms("films", "VERB") == ["shoot", "take"]


@pytest.mark.parametrize(
    "name, line, wanted",
    [
        ("my_synonyms.tsv", "film\tn", "word TAB n, v, a or r TAB synonym|synonym|..."),
        ("my_synonyms.tsv", "film\tx\tmovie", "word TAB n, v, a or r TAB synonym|synonym|..."),
        ("my_synonyms.tsv", "film\tn\t", "word TAB n, v, a or r TAB synonym|synonym|..."),
        ("my_synonyms.tsv", "a\tn\tb\tc", "word TAB n, v, a or r TAB synonym|synonym|..."),
        ("my_synonyms.tsv", "", "word TAB n, v, a or r TAB synonym|synonym|..."),
        ("my_irregular_forms.tsv", "ran\tv\trun", "form TAB base TAB n, v, a or r"),
    ],
)
def test_a_line_of_another_kind_is_named(name: str, line: str, wanted: str, tmp_path: Path):
    _listed(tmp_path)
    path = tmp_path / name
    path.write_text(path.read_text().replace("\n", f"\n{line}\n", 1))
    with pytest.raises(ValueError) as refused:
        wordnet.load(tmp_path / "my_synonyms.tsv")
    assert str(refused.value) == f"attack.resources.wordnet={path}: line 2: wanted {wanted}"


def test_no_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="attack.resources.wordnet=.*tsv: cannot be read: No such"):
        wordnet.load(tmp_path / "my_synonyms.tsv")


# ---- Princeton's files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word, pos, expected",
    [
        ("dog", "NOUN", ["cad", "hound"]),
        ("dogs", "NOUN", ["cad", "hound"]),
        ("Dogges", "NOUN", ["Cad", "Hound"]),
        ("dogges", "VERB", []),
        ("dog", "VERB", ["chase"]),
        ("dogging", "VERB", ["chase"]),
        ("chased", "VERB", ["dog"]),
        ("abounding", "ADJ", ["galore"]),
        ("galore", "ADJ", ["abounding"]),
        ("quickly", "ADV", ["quick"]),
        ("dog", "ADJ", []),
    ],
)
@pytest.mark.parametrize("index", [False, True])
def test_synonyms_of_princetons_files(
    word: str, pos: str, expected: list[str], index: bool, tmp_path: Path
):
    assert _princeton(tmp_path, index).synonyms(word, pos) == expected


def test_the_index_tells_the_order_of_senses(tmp_path: Path):
    data = "00000001 04 n 02 dog 0 canine 0 000 | one\n00000002 18 n 02 dog 0 cad 0 000 | two\n"
    _princeton(tmp_path)
    (tmp_path / "data.noun").write_text(data)
    assert wordnet.load(tmp_path).synonyms("dog", "NOUN") == ["cad", "canine"]
    (tmp_path / "index.noun").unlink()
    assert wordnet.load(tmp_path).synonyms("dog", "NOUN") == ["canine", "cad"]


def test_the_count_of_words_is_hexadecimal(tmp_path: Path):
    assert _princeton(tmp_path, index=False).synonyms("k", "NOUN") == list("abcdefghij")


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("data.verb", "", ""),
        ("data.noun", "00000001 04 n 02 dog 0\n", "line 1: no synset of WordNet's data.*"),
        (
            "data.noun",
            LICENCE + "00000001 04 n zz dog 0\n",
            "line 3: no synset of WordNet's data.*",
        ),
        ("data.noun", "word\n", "line 1: no synset of WordNet's data.*"),
        ("data.noun", "\n", "line 1: no synset of WordNet's data.*"),
        ("index.noun", "dog n 2 1 @ 2 1 00000001\n", "line 1: no entry of WordNet's index.*"),
        ("index.noun", "dog\n", "line 1: no entry of WordNet's index.*"),
        ("index.noun", "dog n 1 1 @ 1 1 00000009\n", "dog: data.noun has no 00000009"),
    ],
)
def test_what_is_none_of_princetons_is_named(name: str, content: str, said: str, tmp_path: Path):
    _princeton(tmp_path)
    (tmp_path / name).write_text(content)
    if not said:
        wordnet.load(tmp_path)
        return
    with pytest.raises(ValueError) as refused:
        wordnet.load(tmp_path)
    assert str(refused.value) == f"attack.resources.wordnet={tmp_path / name}: {said}"


def test_a_folder_without_them_is_named(tmp_path: Path):
    with pytest.raises(
        ValueError, match="attack.resources.wordnet=.*data.noun: cannot be read: No"
    ):
        wordnet.load(tmp_path)


# ---- a real one ----------------------------------------------------------------------------------


def test_open_english_wordnet():
    path = LEX / "oewn_synonyms.tsv.gz"
    if not path.is_file():
        pytest.skip("no ../shared/lex: Open English WordNet is not at hand")
    words = wordnet.load(path)
    rows = gzip.decompress(path.read_bytes()).decode()
    for word, letter, pos in (("film", "v", "VERB"), ("quickly", "r", "ADV"), ("big", "a", "ADJ")):
        row = rows.split(f"\n{word}\t{letter}\t", 1)[1].split("\n", 1)[0]
        expected = [synonym for synonym in row.split("|") if " " not in synonym]
        assert words.synonyms(word, pos) == expected
    assert words.synonyms("ran", "VERB") == words.synonyms("run", "VERB") != []
    assert "felicitous" in words.synonyms("happier", "ADJ")
