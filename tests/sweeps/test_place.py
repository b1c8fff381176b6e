"""Where the runs of a sweep work."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lit_adv.sweeps import place


@pytest.fixture(autouse=True)
def unclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_claimed", [])


def test_there_is_a_worker_per_accelerator_or_else_per_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a,7")
    assert place.devices() == ["2", "GPU-5a", "7"] and place.workers() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert place.devices() == [] and place.workers() == place.cores() >= 1


def test_processes_take_different_accelerators_and_share_them_when_all_are_taken(tmp_path: Path):
    taken = [place.claim(["0", "1"], tmp_path) for _ in range(5)]
    assert taken == ["0", "1", "0", "1", "0"]
    place._claimed[1].release()  # that process has ended
    assert place.claim(["0", "1"], tmp_path) == "1"


def test_a_process_keeps_its_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    place.claim(["3", "4"], tmp_path / ".accelerators")  # another one has the first
    others, place._claimed[:] = [*place._claimed], []
    target = {"launcher": {"_target_": "x.JoblibLauncher"}, "sweep": {"dir": str(tmp_path)}}
    hydra = OmegaConf.create(target)
    for _ in range(2):  # a worker of joblib runs many jobs
        assert place.settle(hydra)  # pyright: ignore
        assert place.devices() == ["4"] and others[0].is_locked
