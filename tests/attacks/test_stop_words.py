"""The packaged stop words, and a file of one's own."""

import gzip
import zipfile
from pathlib import Path

import pytest

from lit_adv.attacks import stop_words

SNOWBALL = Path(__file__).parents[2] / "../shared/lex/nltk/stopwords.zip"


def test_the_packaged_words_are_function_words():
    words = stop_words.load()
    assert len(words) == 179
    assert {"the", "not", "i", "don't", "wouldn't", "of"} <= words
    assert not {"good", "film", "", "#"} & words
    assert all(word == word.lower().strip() for word in words)


def test_the_packaged_words_are_nltks():
    if not SNOWBALL.is_file():
        pytest.skip("no ../shared/lex: nltk's list is not at hand")
    words = zipfile.ZipFile(SNOWBALL).read("stopwords/english").decode().split()
    assert stop_words.load(None) == frozenset(words)


def test_comments_and_empty_lines_are_no_words(tmp_path: Path):
    text = "# mine: the\n\n  The \r\nof\n#of all\n\t\n\u00fcber"
    (tmp_path / "mine.txt").write_bytes(text.encode())
    (tmp_path / "mine.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    for name in ("mine.txt", "mine.txt.gz"):
        assert stop_words.load(str(tmp_path / name)) == {"the", "of", "\u00fcber"}


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "cannot be read: No such file"),
        (b"the\nof all\n", "line 2: 'of all': wanted one word a line"),
        (b"the\n\n\xff\n", "line 3: no UTF-8"),
    ],
)
def test_what_is_no_list_is_named(content: bytes | None, said: str, tmp_path: Path):
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        stop_words.load(str(path))
    assert str(refused.value).startswith(f"attack.resources.stop_words={path}: {said}")


def test_a_folder_is_no_list(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        stop_words.load(str(tmp_path))
