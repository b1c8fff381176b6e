"""Whatever becomes of single runs, the others run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.plugins.launcher import Launcher

from lit_adv import failure, results
from lit_adv.reports.reading import as_json
from lit_adv.sweeps.jobs import Job
from lit_adv.sweeps.launching import launch


class Workers(Launcher):
    """Runs jobs as a pool of workers does: one that dies takes all that are at work with it.

    Args:
        sweep: folder.
        deadly: names of runs that kill their worker.
        together: how many are at work at once.
    """

    def __init__(self, sweep: Path, deadly: set[str], together: int = 2) -> None:
        self.sweep, self.deadly, self.together = sweep, deadly, together
        self.launched: list[list[str]] = []

    def setup(self, **_: Any) -> None: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        names = [each[-1].partition("=")[2].strip("'") for each in job_overrides]
        self.launched.append(names)
        for start in range(0, len(names), self.together):
            group = names[start : start + self.together]
            for name in group:
                (self.sweep / name / ".hydra").mkdir(parents=True, exist_ok=True)
            if self.deadly & set(group):
                raise RuntimeError("a worker was killed: SIGKILL")
            for name in group:
                if name.startswith("bad"):
                    failure.write(self.sweep / name, ValueError("flood.b=0.7: too high"))
                else:
                    results.write(self.sweep / name / "results.json", {"val": {"loss": 1.0}})


def states(sweep: Path, names: str, workers: Workers, size: int | None = None) -> dict[str, str]:
    jobs = [Job((f"run={name}",), sweep / name) for name in names.split()]
    launch(workers, jobs, sweep, size)
    return {job.folder.name: job.state for job in jobs}


def test_a_failed_run_stops_no_other(tmp_path: Path):
    workers = Workers(tmp_path, set())
    assert states(tmp_path, "a bad b", workers) == {
        "a": "finished",
        "bad": "failed",
        "b": "finished",
    }
    assert workers.launched == [["a", "bad", "b"]]
    assert as_json(tmp_path / "bad" / "failure.json")["reason"] == "flood.b=0.7: too high"


def test_a_run_that_kills_its_worker_has_failed_and_its_neighbours_have_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workers = Workers(tmp_path, {"big"})
    found = states(tmp_path, "a b c big d e", workers)
    assert found.pop("big") == "failed" and set(found.values()) == {"finished"}
    assert workers.launched == [["a", "b", "c", "big", "d", "e"], ["c"], ["big"], ["d", "e"]]
    assert as_json(tmp_path / "big" / "failure.json")["reason"] == (
        "its process ended, perhaps for want of memory (a worker was killed: SIGKILL)"
    )
    assert "a worker has died; runs are taken up one by one" in capsys.readouterr().err


def test_a_launcher_that_does_not_work_is_no_failure_of_the_runs(tmp_path: Path):
    class Broken(Workers):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
            raise ConnectionError("no such cluster")

    with pytest.raises(ConnectionError, match="no such cluster"):
        states(tmp_path, "a b", Broken(tmp_path, set()))
    assert not list(tmp_path.glob("*/failure.json"))


def test_no_more_runs_at_once_than_it_is_told(tmp_path: Path):
    workers = Workers(tmp_path, set())
    states(tmp_path, "a b c d e", workers, size=2)
    assert workers.launched == [["a", "b"], ["c", "d"], ["e"]]


def test_a_failure_of_before_is_forgotten_when_the_run_begins_anew(tmp_path: Path):
    failure.write(tmp_path / "a", MemoryError("out of memory"))
    assert states(tmp_path, "a", Workers(tmp_path, set())) == {"a": "finished"}
    assert not (tmp_path / "a" / "failure.json").exists()
