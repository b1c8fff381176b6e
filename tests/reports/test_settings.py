"""Runs are grouped by all but the seed, and compared with plain training under equal conditions."""

from pathlib import Path

import pytest
import sweeps
import yaml
from made import TARGETS, done, run, scores

from lit_adv.config import folder as configurations
from lit_adv.reports import settings, table
from lit_adv.reports.metric import TASKS_OWN
from lit_adv.reports.report import read
from lit_adv.reports.sweep import Sweep
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression

DONE = done(0.9, 0.8)


def test_plain_is_what_the_configurations_call_so():
    for group, target in settings.PLAIN.items():
        name = {"method": "finetune", "update": "plain"}.get(group, "none")
        written = yaml.safe_load((configurations() / group / f"{name}.yaml").read_text())
        assert written["_target_"] == target == TARGETS[group, name]
    for task in (Classification, Regression):
        assert task.monitor.removeprefix("val/") in TASKS_OWN


def test_seeds_of_a_setting_are_together(flooded: Sweep):
    assert len(flooded.runs) == 2 * 52 and len(flooded.settings) == 52
    assert flooded.axes == ["flood", "flood.b"]
    plain, zero = flooded.settings[:2]
    assert flooded.label(plain) == "plain fine-tuning" and flooded.label(zero) == "fixed, flood.b=0"
    assert [run.seed for run in zero.runs] == [1, 2]
    broken, unfinished = flooded.settings[51], flooded.settings[50]
    assert (len(broken.runs), len(broken.failed), len(broken.running)) == (1, 1, 0)
    assert (len(unfinished.runs), len(unfinished.failed), len(unfinished.running)) == (1, 0, 1)


def test_the_baseline_is_plain_training_and_the_difference_is_paired(flooded: Sweep):
    plain = flooded.settings[0]
    assert 1 not in flooded.baselines
    assert all(base is plain for base in flooded.baselines.values())
    best = next(s for s in flooded.settings if s.values.get("flood.b") == sweeps.BEST)
    found = flooded.difference(best)  # 0.895, 0.905 against 0.84, 0.86
    assert found is not None and found.n == 2 and found.half is not None
    assert found.mean == pytest.approx(0.05)
    assert found.half == pytest.approx(12.7062 * 0.00707107 / 2**0.5, rel=1e-4)


def test_the_best_is_chosen_by_validation(tmp_path: Path):
    for b, val, test in ((0.1, 0.9, 0.5), (0.2, 0.8, 0.99)):
        options = {"flood.b": b}
        run(tmp_path / str(b), {"flood": "fixed"}, options, val=scores(val), test=scores(test))
    (problem,) = read([tmp_path]).problems
    assert problem.best and problem.best.values["flood.b"] == 0.1
    assert problem.worst and problem.worst.values["flood.b"] == 0.2


def test_of_a_cost_less_is_better(grid: Sweep):
    (problem,) = grid.problems
    assert (grid.metric.shown, grid.metric.chosen) == ("test/loss", "val/loss") and grid.metric.less
    best = problem.best
    assert best and (best.values["optimizer.lr"], best.values["flood.b"]) == (1e-4, 0.2)


def test_without_plain_training_level_zero_is_the_baseline(grid: Sweep):
    assert grid.axes == ["flood.b", "optimizer.lr"]
    for setting in grid.settings:
        base = grid.baselines.get(setting.number)
        if setting.values["flood.b"] == 0:
            assert base is None
        else:
            assert base is not None and base.values["flood.b"] == 0
            assert base.values["optimizer.lr"] == setting.values["optimizer.lr"]


def test_plain_training_under_other_conditions_is_no_baseline(tmp_path: Path):
    run(tmp_path / "0", options={"optimizer.lr": 0.1}, **DONE)
    run(tmp_path / "1", {"flood": "fixed"}, {"flood.b": 0.1}, **DONE)
    assert read([tmp_path]).baselines == {}


def test_what_follows_from_a_choice_is_no_axis(methods: Sweep):
    assert methods.axes == ["method"]
    assert [methods.label(s) for s in methods.settings][0] == "plain fine-tuning"
    assert [s.number for s in methods.settings] == [1, 2, 3, 4]


def test_values_that_others_refer_to_make_no_setting_of_plain_training(tmp_path: Path):
    for k, radius in enumerate((0.1, 0.2)):
        given = {"overridden": ["method", "recipe.radius"], **DONE}
        run(tmp_path / f"{k}", options={"recipe.radius": radius}, seed=k, **given)
        both = {"recipe.radius": radius, "method.radius": radius}
        run(tmp_path / f"pgd{k}", {"method": "pgd"}, both, **given)
    found = read([tmp_path])
    assert [found.label(s) for s in found.settings] == [
        "plain fine-tuning",
        "pgd, method.radius=0.1",
        "pgd, method.radius=0.2",
    ]


def test_what_only_some_have_tells_them_apart(tmp_path: Path):
    run(tmp_path / "0", **DONE)
    averaging = {"_target_": "lit_adv.callbacks.exponential.Average", "decay": 0.99}
    run(tmp_path / "1", options={"callbacks.averaging": averaging}, **DONE)
    watching = {"_target_": "lit_adv.callbacks.gradient_accordance.GradientAccordance"}
    run(tmp_path / "2", options={"callbacks.accordance": watching}, seed=1, **DONE)
    found = read([tmp_path])
    labels = [found.label(setting) for setting in found.settings]
    assert labels == ["without it", "callbacks.averaging=Average"]
    assert [run.name for run in found.settings[0].runs] == ["0", "2"]
    assert "callbacks.averaging._target_" in table.text(found).splitlines()[0]


def test_other_runs_that_a_run_refers_to_follow_from_its_seed(tmp_path: Path):
    for seed in (1, 2):
        options = {"flood.run": f"plain/{seed}", "flood.factor": 0.5, "data.seed": seed}
        run(tmp_path / str(seed), {"flood": "half"}, options, seed=seed, **DONE)
    (together,) = read([tmp_path]).settings
    assert len(together.runs) == 2
    options = {"flood.run": "another", "flood.factor": 0.5, "data.seed": 1}
    run(tmp_path / "3", {"flood": "half"}, options, seed=1, **DONE)
    assert len(read([tmp_path]).settings) == 3  # now it is a choice: seed 1 has two of them


def test_of_repeated_runs_the_last_one_counts(tmp_path: Path):
    for name, value in (("9", 0.1), ("10", 0.7)):
        run(tmp_path / name, val=scores(value), test=scores(value))
    (setting,) = read([tmp_path]).settings
    assert setting.by_seed("test/accuracy") == {0: 0.7}
    assert [each.name for each in setting.repeated] == ["9"]


def test_a_failed_seed_that_was_run_again_is_not_missing(tmp_path: Path):
    run(tmp_path / "0", failure="no space left on device")
    run(tmp_path / "1", **DONE)
    (setting,) = read([tmp_path]).settings
    assert len(setting.runs) == 1 and setting.failed == ()


def test_other_data_are_another_problem(tmp_path: Path):
    for data, value in (("reviews", 0.9), ("hard", 0.6)):
        for b in (0.0, 0.1):
            options = {"flood.b": b}
            chosen = {"data": data, "flood": "fixed"}
            run(tmp_path / f"{data}{b}", chosen, options, **done(value + b, value))
    found = read([tmp_path])
    assert [problem.data for problem in found.problems] == ["hard", "reviews"]
    assert [p.best and p.best.values["flood.b"] for p in found.problems] == [0.1, 0.1]


@pytest.mark.parametrize(
    "asked, shown, chosen",
    [
        (None, "test/accuracy", "val/accuracy"),
        ("accuracy", "test/accuracy", "val/accuracy"),
        ("val/accuracy", "val/accuracy", "val/accuracy"),
        ("test/loss", "test/loss", "val/loss"),
        ("attack/pwws", "attack/pwws", "val/accuracy"),
    ],
)
def test_metrics_are_shown_on_test_and_chosen_by_validation(
    methods: Sweep, asked: str | None, shown: str, chosen: str
):
    found = read([methods.runs[0].folder.parent], asked)
    assert (found.metric.shown, found.metric.chosen) == (shown, chosen)


def test_a_metric_that_no_run_has_is_refused(tmp_path: Path):
    run(tmp_path / "0", **DONE)
    there = "those there are: test/accuracy, test/loss, val/accuracy, val/loss"
    with pytest.raises(ValueError, match=f"--metric=test/f1: no run has it; {there}"):
        read([tmp_path], "test/f1")


def test_runs_of_nothing_comparable_are_refused(tmp_path: Path):
    run(tmp_path / "0", val={"accuracy": 0.5}, test={})
    run(tmp_path / "1", val={"pearson": 0.5}, test={})
    with pytest.raises(ValueError, match="no two of these runs have a metric in common"):
        read([tmp_path])
