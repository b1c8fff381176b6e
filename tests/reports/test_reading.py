"""A folder is read at any time of a run's life, whatever is missing, torn or none of ours."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from made import run, scores

from lit_adv.reports import finding, logs
from lit_adv.reports.reading import read


def test_a_finished_run_tells_all(tmp_path: Path):
    folder = run(
        tmp_path / "7",
        {"flood": "fixed"},
        {"flood.b": 0.1},
        seed=3,
        val=scores(0.9),
        test=scores(0.8),
        flooding={"b": 0.1, "step": 5},
        overridden=["flood", "flood.b"],
        attacks={"textfooler": (80.0, 30.0, 25.0)},
    )
    found = read(folder, "7")
    assert (found.state, found.seed, found.steps, found.level, found.since) == (
        "ok",
        3,
        100,
        0.1,
        5,
    )
    assert found.settings["flood"] == "fixed" and found.settings["flood.b"] == 0.1
    assert found.overridden == {"flood", "flood.b"}
    assert found.metrics["test/accuracy"] == 0.8 and found.metrics["val/loss"] == 0.5
    assert found.metrics["attack/textfooler"] == pytest.approx(0.3)
    assert found.metrics["attack/textfooler/calibrated"] == pytest.approx(0.25)
    assert found.costs["train_seconds"] == 10.0
    assert found.attacks[0].page == folder / "attacks" / "textfooler" / "attack.html"


def test_places_and_watchers_are_no_settings(tmp_path: Path):
    found = read(run(tmp_path / "0"), "0").settings
    assert "output_dir" not in found and "logger.csv.save_dir" not in found
    assert not any(key.startswith("callbacks.rate") for key in found)
    assert found["optimizer.betas"] == "[0.9, 0.999]"


def test_a_metric_that_is_not_finite_is_none(tmp_path: Path):
    folder = run(tmp_path / "0", val=scores(0.9), test={"accuracy": None, "loss": 0.1})
    assert "test/accuracy" not in read(folder, "0").metrics


@pytest.mark.parametrize("content", ["", "{", '{"val": {"accuracy": 0.9}, "te', "[]", "null"])
def test_torn_results_are_those_of_a_running_one(tmp_path: Path, content: str):
    folder = run(tmp_path / "0", val=scores(0.9), test=scores(0.9))
    (folder / "results.json").write_text(content)
    assert (read(folder, "0").state, read(folder, "0").metrics) == ("running", {})


def test_a_failed_run_says_why_in_one_line_and_a_finished_one_is_not_failed(tmp_path: Path):
    failed = read(run(tmp_path / "0", failure="loss is\nnot finite"), "0")
    assert (failed.state, failed.reason) == ("failed", "loss is not finite")
    again = run(tmp_path / "1", failure="earlier", val=scores(0.9), test=scores(0.9))
    assert (read(again, "1").state, read(again, "1").reason) == ("ok", "")
    torn = run(tmp_path / "2")
    (torn / "failure.json").write_text('{"reason": "lo')
    assert read(torn, "2").state == "running"


def test_before_its_own_configuration_hydras_is_read(tmp_path: Path):
    folder = run(tmp_path / "0", {"flood": "fixed"}, {"flood.b": 0.2, "recipe.radius": 0.3})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["method"]["radius"] = "${recipe.radius}"
    config["output_dir"] = "${hydra:runtime.output_dir}"
    config["logger"]["csv"]["save_dir"] = "${output_dir}"
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "config.yaml").unlink()
    found = read(folder, "0")
    assert found.settings["method.radius"] == 0.3 and found.settings["flood.b"] == 0.2
    assert found.settings["flood"] == "fixed" and found.state == "running"

    (folder / "config.yaml").write_text("seed: 0\nmethod:\n  _tar")  # its end is not written yet
    assert read(folder, "0").settings["method.radius"] == 0.3
    shutil.rmtree(folder / ".hydra")
    assert read(folder, "0").settings == {}


def test_runs_are_found_at_any_depth_once_and_in_natural_order(tmp_path: Path):
    for name in ("2", "10", "deep/er/1"):
        run(tmp_path / "sweep" / name, val=scores(0.9), test=scores(0.9))
    run(tmp_path / "sweep" / "2" / "checkpoints" / "no")
    shutil.rmtree(tmp_path / "sweep" / "10" / ".hydra")
    (tmp_path / "sweep" / "other").mkdir()
    (tmp_path / "sweep" / "other" / "config.yaml").write_text("a: 1\n")
    found = finding.runs([tmp_path / "sweep", tmp_path / "sweep" / "2"])
    assert [each.name for each in found] == ["2", "10", "deep/er/1"]
    (alone,) = finding.runs([tmp_path / "sweep" / "2"])
    assert alone.name == "."


def test_no_folder_and_no_runs_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere: no such folder; give"):
        finding.runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no runs in it; a run's folder holds config.yaml"):
        finding.runs([tmp_path])


def test_the_last_line_of_a_log_counts_when_it_has_an_end(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n0,0.5,\n1,0.4,\n1,,0.7\n2,0.3")
    assert logs.read(tmp_path) == {"train/loss": {0: 0.5, 1: 0.4}, "val/loss": {1: 0.7}}
    (tmp_path / "metrics.csv").write_text("step,train/lo")
    assert logs.read(tmp_path) == {}
    (tmp_path / "metrics.csv").write_text("epoch,train/loss\n0,0.5\n")
    assert logs.read(tmp_path) == {} == logs.read(tmp_path / "nowhere")


def test_thinned_series_keep_the_lowest_and_the_last_point():
    points = [(float(k), abs(k - 777) / 100) for k in range(1000)]
    kept = logs.some(points)
    assert len(kept) <= 62 and (777.0, 0.0) in kept and kept[-1] == points[-1]
    assert kept == sorted(kept) and logs.some(points[:9]) == points[:9]
    assert len(logs.stretches(points)) <= 60 and logs.stretches([]) == []


def test_attacks_of_an_older_results_json_are_metrics_too(tmp_path: Path):
    folder = run(tmp_path / "0", val=scores(0.9), test=scores(0.9))
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "attack": {"pwws": 0.4}}))
    assert read(folder, "0").metrics["attack/pwws"] == 0.4
