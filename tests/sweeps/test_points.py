"""Which runs a sweep has."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from lit_adv import config
from lit_adv.sweeps import points as counted

PARSE = OverridesParser.create().parse_overrides


def points(
    params: dict[str, Any] | None = None,
    corners: list[dict[str, Any]] | None = None,
    *arguments: str,
) -> list[list[str]]:
    return counted.points(params or {}, corners or [], arguments, PARSE)


def test_every_combination_the_last_key_fastest():
    assert points({"a": "1,2"}, None, "b=x,y", "c=3") == [
        ["a=1", "b=x", "c=3"],
        ["a=1", "b=y", "c=3"],
        ["a=2", "b=x", "c=3"],
        ["a=2", "b=y", "c=3"],
    ]


def test_the_command_line_replaces_values_of_the_same_key():
    assert points({"a": "1,2", "b": "range(0,9)"}, None, "b=7") == [["a=1", "b=7"], ["a=2", "b=7"]]


def test_every_run_has_one_of_the_corners_and_none_runs_twice():
    corners = [{"flood": "none"}, {"flood": "fixed", "flood.b": 0.4}]
    assert points(None, corners, "seed=0,1") == [
        ["flood=none", "seed=0"],
        ["flood=none", "seed=1"],
        ["flood=fixed", "flood.b=0.4", "seed=0"],
        ["flood=fixed", "flood.b=0.4", "seed=1"],
    ]
    assert points(None, [*corners, {"flood": "none"}]) == points(None, corners)


def test_the_steps_of_a_range_are_as_written():
    values = [line for (line,) in points({"b": "range(0,0.51,0.01)"})]
    assert values == ["b=0.0", *(f"b={n / 100!r}" for n in range(1, 51))]


@pytest.mark.parametrize(
    "line, said",
    [
        ("b=interval(0,0.5)", r"b=interval\(0,0.5\): a grid needs single values"),
        ("b=range(0,0.3,0.1),0.7", "b: a list of single values, or one range"),
    ],
)
def test_what_has_no_end_or_two_kinds_is_refused(line: str, said: str):
    with pytest.raises(ValueError, match=said):
        points(None, None, line)


def swept(name: str, *arguments: str) -> list[list[str]]:
    """The runs of conf/sweep/NAME.yaml."""
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        cfg = compose("train", [f"sweep={name}"], return_hydra_config=True)
        assert cfg.hydra.mode.name == "MULTIRUN"
        sweeper = cfg.hydra.sweeper
        loader = GlobalHydra.instance().config_loader()
        parse = OverridesParser.create(config_loader=loader).parse_overrides
        return counted.points(sweeper.params or {}, sweeper.points or [], arguments, parse)


def test_the_sweeps_of_the_papers_are_theirs():
    levels = swept("flood_levels")
    assert levels[0] == ["flood=fixed", "flood.b=0.0"] and levels[-1][1] == "flood.b=0.5"
    assert len(levels) == 51 and len(swept("flood_levels", "seed=0,1,2")) == 153
    assert swept("flooding_article") == [
        ["flood=none"],
        ["flood=fixed", "flood.b=0.4"],
        ["flood=fixed", "flood.b=0.5"],
        ["flood=fixed", "flood.b=0.7"],
        ["update=alternate", "update.ratio=0.1"],
    ]
    weights = [line for *_, line in swept("smart_lambda")]
    assert weights == ["method=finetune", *(f"method.weight={n}" for n in (1, 3, 5))]


def test_the_sweep_over_methods_has_them_all():
    methods = {path.stem for path in (Path(config.folder()) / "method").glob("*.yaml")}
    runs = swept("methods")
    assert {line for line, _ in runs} == {f"method={name}" for name in methods}
    assert len(runs) == 3 * len(methods)
