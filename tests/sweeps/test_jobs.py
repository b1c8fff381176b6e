"""A job has the folder that its configuration stands in."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.conf import HydraConf, SweepDir
from omegaconf import DictConfig, OmegaConf

from lit_adv.sweeps.jobs import Job, jobs, task


def config(sweep: Path, subdir: str = "${hydra.job.num}") -> DictConfig:
    hydra = HydraConf(sweep=SweepDir(dir=str(sweep), subdir=subdir))
    return OmegaConf.create({"b": 0, "seed": 0, "hydra": hydra})


def found(sweep: Path, points: Sequence[Sequence[str]], subdir: str = "${hydra.job.num}"):
    base = config(sweep, subdir)

    def compose(overrides: list[str]) -> DictConfig:
        return OmegaConf.merge(base, OmegaConf.from_dotlist(overrides))  # pyright: ignore

    return jobs(points, base, compose)


def begin(job: Job) -> None:
    """What a run writes when it begins."""
    (job.folder / ".hydra").mkdir(parents=True)
    base = config(job.folder.parent)
    text = task(OmegaConf.merge(base, OmegaConf.from_dotlist(list(job.overrides))))  # pyright: ignore
    for path in (job.folder / ".hydra" / "config.yaml", job.folder / "config.yaml"):
        path.write_text(text)


def names(jobs: list[Job]) -> list[str]:
    return [job.folder.name for job in jobs]


def test_jobs_are_numbered_and_have_their_numbers_again(tmp_path: Path):
    points = [[f"b={n}"] for n in range(4)]
    first = found(tmp_path, points)
    assert names(first) == ["0", "1", "2", "3"]
    assert [job.label for job in first] == ["b=0", "b=1", "b=2", "b=3"]
    for job in (first[0], first[2]):  # the order in which workers begin is anyone's
        begin(job)
    assert names(found(tmp_path, points)) == ["0", "1", "2", "3"]


def test_a_sweep_that_has_grown_keeps_what_it_has(tmp_path: Path):
    for job in found(tmp_path, [["b=1"], ["b=3"]]):
        begin(job)
    grown = found(tmp_path, [["b=0"], ["b=1"], ["b=2"], ["b=3"]])
    assert names(grown) == ["2", "0", "3", "1"]


def test_another_configuration_is_another_run_though_its_words_are_the_same(tmp_path: Path):
    (job,) = found(tmp_path, [["b=1"]])
    begin(job)
    path = job.folder / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 5"))  # conf/ had this then
    assert names(found(tmp_path, [["b=1"]])) == ["1"]


def test_a_folder_in_which_no_run_has_begun_is_free(tmp_path: Path):
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "config.yaml").write_text("b: 1\nse")  # killed while writing
    assert names(found(tmp_path, [["b=1"]])) == ["0"]


def test_the_folder_of_a_run_that_failed_before_all_else_is_not_another_s(tmp_path: Path):
    (job,) = found(tmp_path, [["b=1"]])
    begin(job)
    (job.folder / "config.yaml").unlink()
    assert names(found(tmp_path, [["b=2"], ["b=1"]])) == ["1", "0"]


def test_other_words_for_the_same_run_are_one_run(tmp_path: Path):
    assert names(found(tmp_path, [["b=1"], ["b=1", "seed=0"], ["b=2"]])) == ["0", "1"]


def test_folders_may_have_names_of_the_user_s_own(tmp_path: Path):
    named = found(tmp_path, [["b=1"], ["b=2"]], "b=${b}")
    assert names(named) == ["b=1", "b=2"]
    begin(named[0])
    assert names(found(tmp_path, [["b=1"], ["b=2"]], "b=${b}")) == ["b=1", "b=2"]
    assert named[0].command(tmp_path)[-1] == "hydra.sweep.subdir='b=1'"
    with pytest.raises(ValueError, match="two runs would have the folder"):
        found(tmp_path, [["b=1"], ["b=1", "seed=1"]], "b=${b}")
    with pytest.raises(ValueError, match="holds a run of another configuration"):
        found(tmp_path, [["b=1", "seed=1"]], "b=${b}")
