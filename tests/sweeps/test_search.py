"""hydra/sweeper=optuna, from the command line to the report."""

import json
import sys
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from searches import Killed, search, study, told

from lit_adv.sweeps.storage import storage

B = "flood.b=interval(0,0.5)"


def test_killed_and_gone_on_with_it_is_the_same_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    flag = tmp_path / "flag"
    options = [B, "hydra.sweeper.n_trials=3", "recipe.learning_rate=tag(log, interval(1e-4,1e-2))"]
    options += ["+callbacks.kill._target_=searches.KillOnce", "+callbacks.kill.step=5"]
    options += [f"+callbacks.kill.file={flag}"]
    search(monkeypatch, tmp_path / "whole", *options)
    whole = told(tmp_path / "whole")
    assert [state for _, state, *_ in whole] == ["COMPLETE"] * 3
    assert [value for _, _, value, _ in whole] == [
        json.loads((tmp_path / f"whole/{n}/results.json").read_text())["val"]["accuracy"]
        for n in range(3)
    ]

    broken = tmp_path / "broken"
    search(monkeypatch, broken, *options, "hydra.sweeper.n_trials=1")
    flag.touch()
    with pytest.raises(Killed):
        search(monkeypatch, broken, *options)
    assert [state for _, state, *_ in told(broken)] == ["COMPLETE", "RUNNING"]
    capsys.readouterr()
    search(monkeypatch, broken, *options)
    assert told(broken) == whole
    assert "ckpt_path: null" not in (broken / "1/config.yaml").read_text()  # it went on
    out, err = capsys.readouterr()
    assert "sweep of 3 runs" in err and "1 of them done" in err
    best = max(value for _, _, value, _ in whole)
    assert "[2/3] flood.b=" in err and "[3/3] flood.b=" in err and f"best {best:.4f}" in err
    assert f"best of 3 trials: {best:.4f} in {broken}" in out
    assert sorted(path.name for path in broken.glob("[0-9]*")) == ["0", "1", "2"]
    assert "3 of 3" in (broken / "report.html").read_text()


def test_a_failed_trial_ends_no_search_and_what_has_been_run_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Above log(2) no level floods anything: refused.
    options = ["flood.b=choice(0.1,5)", "trainer.max_epochs=1", "hydra.sweeper.n_trials=6"]
    options += ["hydra.sweeper.sampler=random", "hydra.sweeper.n_jobs=4"]
    with pytest.raises(SystemExit) as end:
        search(monkeypatch, tmp_path, *options)
    assert end.value.code == 1
    ended = told(tmp_path)
    states = {params["flood.b"]: state for _, state, _, params in ended}
    assert states == {"0.1": "COMPLETE", "5": "FAIL"} and len(ended) == 6
    assert len({value for _, state, value, _ in ended if state == "COMPLETE"}) == 1
    out, err = capsys.readouterr()
    assert out.count("results in") == 1 and "[6/6]" in err and "flood.b=5: flood.b=5" in err
    search(monkeypatch, tmp_path, *options)  # nothing is left, nothing has failed now
    assert told(tmp_path) == ended


def test_an_open_trial_with_results_is_told_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    options = [B, "trainer.max_epochs=1", "optimized_metric=test/loss"]
    search(monkeypatch, tmp_path, *options, "hydra.sweeper.n_trials=1")
    ((_, _, value, params),) = told(tmp_path)
    study(tmp_path).enqueue_trial(params)
    study(tmp_path).ask()
    capsys.readouterr()
    search(monkeypatch, tmp_path, *options, "hydra.sweeper.n_trials=2")
    assert told(tmp_path)[1] == (1, "COMPLETE", value, params)
    assert study(tmp_path).direction.name == "MINIMIZE"
    assert "results in" not in capsys.readouterr().out


def test_a_hopeless_trial_is_pruned_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    others = optuna.create_study(
        study_name="search", storage=storage(str(tmp_path / "study.journal")), direction="maximize"
    )
    for accuracy in (0.0, 2.0, 2.0):  # more than any run can have
        others.add_trial(
            create_trial(
                params={"flood.b": 0.1},
                distributions={"flood.b": FloatDistribution(0, 0.5)},
                value=accuracy,
                intermediate_values={1: accuracy, 2: accuracy},
            )
        )
    options = [B, "hydra.sweeper.n_trials=4", "trainer.max_epochs=4"]
    options += ["hydra.sweeper.pruning={startup_trials:3,warmup_epochs:1}"]
    search(monkeypatch, tmp_path, *options)
    pruned = told(tmp_path)[3]
    assert pruned[1] == "PRUNED"
    failure = json.loads((tmp_path / "3/failure.json").read_text())
    assert failure["type"] == "Pruned"
    reason = f"pruned after epoch 2: val/accuracy {study(tmp_path).trials[3].value:.4f} at best"
    assert failure["reason"].startswith(reason)
    assert failure["reason"].endswith("is below 2.0000, the median of 3 others")
    assert f": {failure['reason']}" in capsys.readouterr().err
    epochs = (tmp_path / "3/metrics.csv").read_text().splitlines()
    assert max(int(line.split(",")[0] or 0) for line in epochs[1:]) == 1
    assert "pruned</span>" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "3/trial.json").exists() and not (tmp_path / "3/results.json").exists()
    search(monkeypatch, tmp_path, *options)
    assert len(told(tmp_path)) == 4 and "pruned after" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["flood.b=interval(0.5,0)"], "flood.b=interval(0.5,0): an interval goes from the lesser"),
        ([], "hydra.sweeper.params: no key with several values"),
        ([B, "hydra.sweeper.sampler=grid"], "hydra.sweeper.sampler=grid: choose one of tpe, rand"),
        ([B, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: needs to be at least 1"),
        ([B, "hydra.sweeper.pruning={startup:1}"], "hydra.sweeper.pruning.startup=1: no option"),
        ([B, "no.such=1"], "no.such: unknown key"),
        (
            [B, "optimized_metric=attack/pwws", "hydra.sweeper.pruning={}"],
            "hydra.sweeper.pruning: ",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as end:
        search(monkeypatch, tmp_path / "sweep", *overrides)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and line.startswith(f"error: {message}")
    assert not (tmp_path / "sweep").exists()


def test_without_optuna_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit):
        search(monkeypatch, tmp_path, B)
    assert capsys.readouterr().err == (
        "error: hydra/sweeper=optuna needs Optuna: pip install 'lit-adv[sweeps]'\n"
    )
