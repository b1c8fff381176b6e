"""Neighbours: of vectors against a full sort, of tables and groups as they are written."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from lit_adv.attacks import neighbours
from lit_adv.attacks.neighbours import Groups, Neighbours, Table, Vectors
from lit_adv.data import grammar

LEX = Path(__file__).parents[2] / "../shared/lex"


def _vectors(count: int = 60, width: int = 8, seed: int = 0) -> tuple[list[str], np.ndarray]:
    random = np.random.default_rng(seed)
    return [f"word{i}" for i in range(count)], random.normal(size=(count, width))


def _reference_near(words: list[str], rows: np.ndarray, word: str) -> list[tuple[str, float]]:
    """All others and their cosines, sorted as a whole in float64."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit[words.index(word)]
    ranked = sorted(range(len(words)), key=lambda i: -cosines[i])
    return [(words[i], float(cosines[i])) for i in ranked if words[i] != word]


def _text(words: list[str], rows: np.ndarray) -> str:
    lines = (f"{w} {' '.join(map(repr, row.tolist()))}" for w, row in zip(words, rows, strict=True))
    return "\n".join(lines) + "\n"


# ---- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_are_those_of_a_full_sort(seed: int):
    words, rows = _vectors(seed=seed)
    vectors = Vectors(words, rows)
    for word in words:
        ranked = _reference_near(words, rows, word)
        for k in (0, 1, 5, 59, 60, 1000):
            assert vectors.near(word, k, -1.0) == [other for other, _ in ranked[:k]]
        for least in (0.0, 0.3, 0.9):
            expected = [other for other, cosine in ranked[:10] if cosine >= least]
            assert vectors.near(word, 10, least) == expected


def test_cosines_are_those_of_the_vectors():
    words, rows = _vectors()
    vectors = Vectors(words, rows)
    assert vectors.similarity_known
    for other, cosine in _reference_near(words, rows, "word7"):
        assert vectors.cosine("word7", other) == pytest.approx(cosine, abs=1e-6)
        assert vectors.cosine(other.upper(), "Word7") == pytest.approx(cosine, abs=1e-6)
    assert vectors.cosine("word7", "word7") == pytest.approx(1, abs=1e-6)
    assert vectors.cosine("word7", "unknown") is vectors.cosine("unknown", "word7") is None


def test_whoever_is_near_enough_has_that_cosine():
    words, rows = _vectors()
    vectors = Vectors(words, rows)
    for word in words:
        near = set(vectors.near(word, 100, 0.25))
        cosines = {other: vectors.cosine(word, other) for other in words if other != word}
        assert near == {other for other, cosine in cosines.items() if cosine and cosine >= 0.25}


def test_equal_cosines_are_ordered_as_in_the_file():
    random = np.random.default_rng(0)
    kinds = random.normal(size=(3, 13)).astype(np.float32)
    which = random.integers(0, 3, size=203)
    words = [f"w{i}" for i in random.permutation(203)]
    # Rows of one kind differ in length alone, by powers of two: the same when normalised.
    rows = kinds[which] * 2.0 ** random.integers(-3, 4, size=(203, 1))
    vectors = Vectors(words, rows)
    for place, word in enumerate(words):
        same = [w for w, kind in zip(words, which, strict=True) if kind == which[place]]
        same.remove(word)
        assert vectors.near(word, len(same), -1.0) == same
        assert vectors.near(word, 7, -1.0) == same[:7]


def test_a_word_of_zeros_is_near_nothing():
    vectors = Vectors(["a", "nil", "b"], np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]]))
    assert vectors.cosine("a", "nil") == 0
    assert vectors.near("a", 5, 0.1) == ["b"]
    assert vectors.near("nil", 5, 0.1) == []


def test_of_words_that_differ_in_case_the_first_counts():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.1]])
    vectors = Vectors(["Apple", "apple", "pear", "Fruit"], rows)
    assert vectors.near("apple", 5, -1.0) == ["Fruit", "pear"]
    assert vectors.near("APPLE", 1, -1.0) == ["FRUIT"]
    assert vectors.cosine("apple", "APPLE") == 1


def test_one_word_has_no_neighbours():
    assert Vectors(["a"], np.ones((1, 3))).near("a", 5, -1.0) == []


# ---- files of vectors ----------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "12 8\n"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", " \n"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_vectors(header: str, ends: str, packed: bool, tmp_path: Path):
    words, rows = _vectors(12)
    words[3] = "na\u00efve\u0085"  # GloVe has such line ends within words
    text = (header + _text(words, rows)).replace("\n", ends).encode()
    path = tmp_path / ("vectors.txt.gz" if packed else "vectors.txt")
    path.write_bytes(gzip.compress(text, mtime=0) if packed else text)
    read, made = neighbours.load(path), Vectors(words, rows)
    assert isinstance(read, Vectors)
    for word in words:
        assert read.near(word, 11, -1.0) == made.near(word, 11, -1.0)
        assert read.cosine(word, "word0") == pytest.approx(made.cosine(word, "word0"), abs=1e-6)


def test_what_is_no_single_word_is_left_out(tmp_path: Path):
    lines = ["a 1 0", ". . . 1 0", "at name@domain 0 1", " 1 1", "\u00a0 1 1", "b 1 1"]
    (tmp_path / "glove.txt").write_bytes("\n".join(lines).encode())
    vectors = neighbours.load(str(tmp_path / "glove.txt"))
    assert vectors.near("a", 9, -1.0) == ["b"]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "line 1: no vectors"),
        (b"3 2\n", "line 1: announces 3 words, but there are 0"),
        (b"3 2\na 1 0\nb 0 1\n", "line 1: announces 3 words, but there are 2"),
        (b"a 1 0\nb 1\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb 1 0 1\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb 0 1 0\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb 1 0 1 0 1\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb 1 x\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb 1 nan\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb 1 1e99\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\n\nb 1 0\n", "line 2: wanted a word and 2 numbers"),
        (b"a 1 0\nb\t1\t0\n", "line 2: wanted a word and 2 numbers"),
        (b"a\n", "line 1: wanted a word and its numbers"),
        (b"a b\n", "line 1: wanted a word and 1 numbers"),
        (b"a 1 0\n\xff 1 0\n", "line 2: no UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_file_of_vectors_is_named(content: bytes | None, said: str, tmp_path: Path):
    path = tmp_path / "vectors.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        neighbours.load(path)
    assert str(refused.value).startswith(f"attack.resources.neighbours={path}: {said}")


# ---- tables --------------------------------------------------------------------------------------


def test_a_table_says_what_is_written_in_it():
    table = Table({"movie": ["film", "Movie", "MoMA", "film", "cinema"], "odd": []})
    assert not table.similarity_known
    assert table.near("movie", 9, 0.99) == ["film", "MoMA", "cinema"]
    assert table.near("Movie", 2, 0.5) == ["Film", "MoMA"]
    assert table.near("MOVIE", 3, 0.5) == ["FILM", "MOMA", "CINEMA"]
    assert table.near("movie", 0, 0.5) == table.near("odd", 5, 0) == table.near("new", 5, 0) == []
    assert table.cosine("movie", "film") is None


@pytest.mark.parametrize("name", ["near.json", "near.json.gz"])
def test_files_of_tables(name: str, tmp_path: Path):
    text = json.dumps({"Good": ["fine", "gro\u00df"], "good": ["never"]}).encode()
    packed = name.endswith(".gz")
    (tmp_path / name).write_bytes(gzip.compress(text, mtime=0) if packed else text)
    table = neighbours.load(tmp_path / name)
    assert isinstance(table, Table) and table.near("good", 5, 0) == ["fine", "gro\u00df"]


@pytest.mark.parametrize(
    "content, said",
    [
        (b'{"a": ["b"],\n"c" ["d"]}', "line 2: no JSON: Expecting ':' delimiter"),
        (b'["a"]', "wanted {word: [neighbours]}, not a list"),
        (b'{"a": ["b"], "c": "d"}', "'c': wanted a list of words"),
        (b'{"a": ["b", 3]}', "'a': wanted a list of words"),
        (b'{"a": {"0": ["b"]}}', "'a': wanted a list of words"),
    ],
)
def test_what_is_no_table_is_named(content: bytes, said: str, tmp_path: Path):
    path = tmp_path / "near.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        neighbours.load(path)
    assert str(refused.value).startswith(f"attack.resources.neighbours={path}: {said}")


# ---- groups --------------------------------------------------------------------------------------


def test_words_of_a_group_stand_for_each_other():
    groups = Groups([("film", "movie", "moving picture"), ("picture", "film"), ("alone",)])
    assert groups.near("Film", 9, 0.9) == ["Movie", "Picture"]
    assert groups.near("movie", 9, 0.9) == ["film"]
    assert groups.near("alone", 9, 0.9) == groups.near("moving picture", 9, 0.9) == []


def test_groups_of_the_grammar():
    groups: Neighbours = Groups(grammar.synonyms())
    assert groups.near("was", 9, 0.0) == ["seemed", "felt", "proved"]
    for group in grammar.synonyms():
        single = {word for word in group if " " not in word}
        for word in single:
            assert single - {word} <= set(groups.near(word, 99, 0.0))


# ---- real ones -----------------------------------------------------------------------------------


def test_counter_fitted_neighbours():
    path = LEX / "counterfitted/counterfitted_neighbors.json.gz"
    if not path.is_file():
        pytest.skip("no ../shared/lex: counter-fitted neighbours are not at hand")
    near = neighbours.load(path).near("Movie", 50, 0.5)
    assert near[0] == "Film" and len(near) == 8 and "Movie" not in near


def test_glove():
    path = LEX / "glove/glove.twitter.27B.25d.12k.txt.gz"
    if not path.is_file():
        pytest.skip("no ../shared/lex: GloVe's vectors are not at hand")
    lines = gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")
    words = [line.split(" ")[0] for line in lines]
    vectors = neighbours.load(path)
    rows = np.array([line.split(" ")[1:] for line in lines], dtype=np.float64)
    for word in ("good", "monday", "terrible"):
        expected = [other for other, _ in _reference_near(words, rows, word)[:10]]
        assert vectors.near(word, 10, 0.0) == expected
