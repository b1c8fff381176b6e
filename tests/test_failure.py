"""A run that fails says why in its folder."""

from pathlib import Path

import pytest

from lit_adv import failure
from lit_adv.errors import one_line
from lit_adv.reports.reading import as_json


def failed(folder: Path, error: BaseException) -> dict[str, str]:
    with pytest.raises(type(error)), failure.recorded(folder):
        raise error
    return as_json(folder / "failure.json")


def test_the_reason_is_one_line_and_the_traceback_is_kept(tmp_path: Path):
    told = failed(tmp_path, ValueError("flood.b=0.7:\n  too high"))
    assert (told["type"], told["reason"]) == ("ValueError", "flood.b=0.7: too high")
    assert "raise error" in told["traceback"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as end:
        (tmp_path / "file" / "folder").mkdir()
    assert one_line(end.value) == f"{tmp_path / 'file' / 'folder'}: Not a directory"
    ours = failed(tmp_path, RuntimeError("CUDA out of memory.\nTried to allocate"))
    assert ours["reason"] == "RuntimeError: CUDA out of memory. Tried to allocate"


def test_an_interruption_is_no_failure(tmp_path: Path):
    assert failed(tmp_path, KeyboardInterrupt()) == failed(tmp_path, SystemExit(143)) == {}


def test_the_next_run_forgets_it(tmp_path: Path):
    failed(tmp_path, ValueError("bad"))
    with failure.recorded(tmp_path):
        assert not (tmp_path / "failure.json").exists()
