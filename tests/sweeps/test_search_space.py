"""Values in Hydra's notation as Optuna's distributions."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lit_adv.sweeps.space import Space, space


def parsed(*arguments: str, **params: object) -> Space:
    return space(params, arguments, OverridesParser.create().parse_overrides)


@pytest.mark.parametrize(
    ("values", "distribution"),
    [
        ("interval(0,0.5)", FloatDistribution(0, 0.5)),
        ("interval(0,1)", FloatDistribution(0, 1)),
        ("tag(log, interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(log, int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("range(0,10,3)", IntDistribution(0, 9, step=3)),
        ("range(5,0,-2)", IntDistribution(1, 5, step=2)),
        ("range(0,0.5,0.1)", FloatDistribution(0, 0.4, step=0.1)),
        ("choice(a,b,a)", CategoricalDistribution(("a", "b"))),
        ("0,1,2", CategoricalDistribution(("0", "1", "2"))),
        ("'a,b',c", CategoricalDistribution(("'a,b'", "c"))),
    ],
)
def test_values_are_those_that_the_notation_names(values: str, distribution: BaseDistribution):
    assert parsed(f"x={values}").searched == {"x": distribution}
    assert parsed(x=values).searched == {"x": distribution}


def test_the_command_line_has_the_last_word_and_single_values_are_fixed():
    found = parsed("b=range(0,0.5,0.1)", "seed=3", "c=choice(u,v)", b="interval(0,1)", m=None)
    assert found.fixed == ("m=null", "seed=3")
    values = {"c": "v", "b": 0.1 + 0.2}
    assert found.point(values) == ["m=null", "seed=3", "b=0.3", "c=v"]
    assert found.label({"b": 1 / 3, "c": "v"}) == "b=0.3333 c=v"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("interval(0.5,0)", r"x=interval\(0.5,0\): an interval goes from the lesser"),
        ("interval(0,inf)", "an interval goes from the lesser"),
        ("tag(log, interval(0,1))", "a logarithmic interval begins above 0"),
        ("tag(log, range(1,5))", r"the only tag .* is tag\(log, interval"),
        ("range(1,1)", "no number in this range"),
        ("range(0,1,0)", "no number in this range"),
        ("shuffle(choice(1,2))", "leave out shuffle"),
        ("3", "hydra.sweeper.params: no key with several values"),
    ],
)
def test_values_that_make_no_sense_are_named(values: str, message: str):
    with pytest.raises(ValueError, match=message):
        parsed(x=values)
