"""`lit-adv report`: what is written, where, and what is refused in one line."""

import re
import sys
from pathlib import Path

import pytest
import sweeps
import yaml
from made import done, run

from lit_adv import reports
from lit_adv.cli.main import main
from lit_adv.pages import parts

DONE = done(0.9, 0.8)


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object
) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    monkeypatch.setattr(sys, "argv", ["lit-adv", "report", *map(str, args)])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_all_files_lie_in_the_first_folder(tmp_path: Path):
    path = reports.write([sweeps.flooded(tmp_path / "sweep")])
    assert path == tmp_path / "sweep" / "report.html"
    names = {file.name for file in path.parent.iterdir() if file.is_file()}
    assert names == {"report.html", "sweep.csv", "over-flood.b.png", "losses.png"}
    links = set(re.findall(r'href="\./([^"/]+\.(?:png|csv))"', path.read_text()))
    assert links == names - {"report.html"}


def test_a_report_written_again_is_the_same(tmp_path: Path):
    sweeps.grid(tmp_path / "sweep")
    for name in ("a", "b"):
        reports.write([str(tmp_path / "sweep")], str(tmp_path / name))
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"
    )
    assert first.keys() == second.keys() and len(first) == 5
    assert all(first[name] == second[name] for name in first)


def test_the_command_says_where_the_report_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    for part in ("one", "two"):
        run(tmp_path / part / "0", options={"optimizer.lr": 0.1 if part == "one" else 0.2}, **DONE)
    output = tmp_path / "new" / "folder"
    folders = (tmp_path / "one", tmp_path / "two")
    code, said, _ = told(monkeypatch, capsys, *folders, "--output", output, "--metric", "loss")
    assert (code, said) == (0, f"report in {output / 'report.html'}\n")
    assert "<code>test/loss</code>, of which less is better" in (output / "report.html").read_text()
    rows = (output / "sweep.csv").read_text().splitlines()
    assert ["one/0" in rows[1], "two/0" in rows[2]] == [True, True]


def test_other_runs_metrics_do_not_hinder_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """Of runs that failed for naming no metric, and of somebody else's."""
    for seed in (0, 1):
        run(tmp_path / str(seed), seed=seed, failure="no such metric", monitor="val/acc")
        run(tmp_path / f"{seed}-mended", seed=seed, monitor="val/accuracy", **DONE)
    theirs = run(tmp_path / "theirs", **DONE)
    config = yaml.safe_load((theirs / "config.yaml").read_text())
    (theirs / "config.yaml").write_text(yaml.safe_dump({**config, "monitor": {"x": 1}}))
    code, said, _ = told(monkeypatch, capsys, tmp_path)
    assert (code, said) == (0, f"report in {tmp_path / 'report.html'}\n")


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["nowhere"], "nowhere: no such folder; give the folder of a sweep or of a run"),
        (["empty"], "no runs in it; a run's folder holds config.yaml and results.json, or .hydra"),
        (
            ["sweep", "--metric", "val/f1"],
            "--metric=val/f1: no run has it; those there are: test/accuracy, test/loss, "
            "val/accuracy, val/loss",
        ),
        (["mixed"], "no two of these runs have a metric in common"),
    ],
)
def test_mistakes_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    line: str,
):
    (tmp_path / "empty").mkdir()
    run(tmp_path / "sweep" / "0", **DONE)
    run(tmp_path / "mixed" / "0", val={"pearson": 0.5})
    run(tmp_path / "mixed" / "1", val={"accuracy": 0.5})
    folder, *rest = arguments
    code, said, error = told(monkeypatch, capsys, tmp_path / folder, *rest)
    assert (code, said) == (1, "") and line in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / folder / "report.html").exists()


def test_a_write_that_is_interrupted_leaves_the_page_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    run(tmp_path / "0", **DONE)
    before = reports.write([tmp_path]).read_text()
    run(tmp_path / "1", {"flood": "fixed"}, {"flood.b": 0.1}, **DONE)

    def interrupted(path: Path, text: str, **options: str) -> int:
        with path.open("w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", interrupted)
        with pytest.raises(OSError, match="no space left"):
            parts.write(tmp_path / "report.html", "new" * 99)
    assert (tmp_path / "report.html").read_text() == before
    assert reports.write([tmp_path]).read_text() != before


def test_a_report_of_real_runs_can_be_read_back_by_its_own_folders(tmp_path: Path):
    sweeps.methods(tmp_path / "sweep")
    source = reports.write([tmp_path / "sweep"], tmp_path / "out").read_text()
    links = re.findall(r'<a href="(\.\./[^"]+)"', source)
    assert len(links) == 12 + 24  # runs, and the attacks on them
    assert all((tmp_path / "out" / link).exists() for link in links)
