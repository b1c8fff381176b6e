"""The launchers: as one by one, each with its file in conf/."""

import signal
from pathlib import Path

import pytest
from sweeping import figures, finish, sweep

OPTIONS = ["trainer.max_epochs=1", "seed=0,1"]


@pytest.mark.parametrize(
    "launcher, plugin, options",
    [
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher", []),
        ("ray", "ray", ["+hydra.launcher.init.num_cpus=2"]),
    ],
)
def test_beside_each_other_they_come_to_what_they_come_to_one_by_one(
    launcher: str,
    plugin: str,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    pytest.importorskip(plugin, reason="an extra")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert finish(monkeypatch, *sweep(tmp_path / "one", *OPTIONS)) == 0
    capsys.readouterr()
    beside = [f"hydra/launcher={launcher}", *options]
    on_sigterm = signal.getsignal(signal.SIGTERM)
    assert finish(monkeypatch, *sweep(tmp_path / "beside", *OPTIONS, *beside)) == 0
    assert signal.getsignal(signal.SIGTERM) == on_sigterm
    assert figures(tmp_path / "beside") == figures(tmp_path / "one")
    assert "results in" in (tmp_path / "beside" / "0" / "output.txt").read_text()
    assert "results in" not in capsys.readouterr().out


def test_a_launcher_that_is_not_installed_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    absent = "hydra.launcher._target_=hydra_plugins.hydra_absent.Launcher"
    command = sweep(tmp_path / "none", *OPTIONS, "hydra/launcher=ray", absent)
    assert finish(monkeypatch, *command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: hydra/launcher=ray: ")
    assert line.endswith("; pip install 'lit-adv[ray]'")
