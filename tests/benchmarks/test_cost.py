"""The command that measures cost: its keys, and the accounting of its floors by hand."""

import json
import math
from typing import Any

import pytest
import torch

from benchmarks import cost, framework, memory, report, subject
from benchmarks.floor import Units, units
from benchmarks.silence import silent
from benchmarks.turns import PIECES, Round
from lit_adv import catalogue
from lit_adv.cost import Cost

TIMED = {
    "fresh": 3.0,
    "adding": 3.5,
    "ascent": 2.0,
    "inner": 1.0,
    "backward": 2.0,
    "forward": 0.5,
    "double": 7.0,
    "step": 0.25,
}


def test_plain_fine_tuning_is_one_training_pass_and_one_step():
    assert units(Cost(1, 1, 1)) == Units()
    assert Units().seconds(TIMED) == 3.25


def test_pgd_is_three_ascents_and_one_training_pass():
    assert units(Cost(4, 4, 1)).seconds(TIMED) == 3 * 2.0 + 3.0 + 0.25


def test_freelb_adds_to_the_gradient_of_its_first_pass():
    counted = units(Cost(3, 3, 3))
    assert counted.seconds(TIMED) == 3.0 + 2 * 3.5 + 0.25
    assert counted.all_fresh.seconds(TIMED) == 3 * 3.0 + 0.25


def test_a_method_that_steps_by_itself_steps_after_every_training_pass():
    assert units(Cost(3, 3, 3), own_steps=True).seconds(TIMED) == 3 * (3.0 + 0.25)


def test_infobert_goes_back_twice_through_the_graph_of_every_training_pass():
    assert units(Cost(3, 6, 3)).seconds(TIMED) == 3.0 + 2 * 3.5 + 3 * 1.0 + 0.25


def test_a_double_backward_pass_is_two_full_ones_to_one_forward_pass():
    penalty = units(Cost(1, 3, 2), double=True)
    assert penalty.seconds(TIMED) == 3.0 + 1.0 + 2.0 + 0.25
    assert penalty.as_bare.seconds(TIMED) == 7.0 + 0.25
    llr = units(Cost(4, 6, 3), double=True)
    assert llr.seconds(TIMED) == (3.0 + 3.5) + 2 * 2.0 + 1.0 + 2.0 + 0.25
    assert llr.as_bare.seconds(TIMED) == 7.0 + 3.5 + 2 * 2.0 + 0.25


def test_a_forward_pass_without_a_gradient_is_counted_as_such():
    assert units(Cost(2, 1, 1)) == PIECES["proximal=vbpp"]


@pytest.mark.parametrize("method", catalogue.methods(), ids=lambda method: method.name)
@pytest.mark.parametrize("double", [False, True])
def test_the_units_are_the_passes_of_the_method(method: catalogue.Method, double: bool):
    counted = units(method.cost, double=double)
    assert counted.cost == pytest.approx(method.cost)
    assert counted.as_bare.cost == pytest.approx(method.cost)


def test_a_step_is_compared_with_the_floor_before_and_after_it():
    slower = [{**TIMED, "fresh": TIMED["fresh"] + more} for more in (0.0, 2.0, 4.0)]
    turn = Round([2 * 4.25, 3 * 6.25], slower)
    assert turn.over(Units()) == 2.5


def test_peak_memory_is_that_of_the_tensors_alive_at_once():
    with memory.Rise(torch.device("cpu")) as rise:
        first = torch.empty(2**18)  # 1 MiB
        second = torch.empty(2**19)
        del first
        third = torch.empty(2**18)
    del second, third
    assert rise.bytes == 3 * 2**20


def test_an_ascent_keeps_less_than_a_training_pass_and_leaves_no_gradient():
    timed = subject.build("tiny", batch=4, tokens=32)
    assert 0 < memory.ascent_share(timed)["ratio"] < 1
    assert all(weight.grad is None for weight in timed.network.parameters())


def test_every_epoch_but_the_first_is_compared_with_the_bare_ones_around_it():
    timed = subject.build("tiny", batch=2, tokens=8)
    with silent():
        ratios, seconds = framework.overheads(timed, batches=2, epochs=2)
    assert (len(ratios), len(seconds)) == (2, 2)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    arguments = "--shape tiny --batch 4 --tokens 8 --rounds 1 --steps 1 --methods pgd,llr,free_at"
    return cost.measure(cost.parse([*arguments.split(), "--pieces", "update=sam"]))


def test_all_figures_are_positive_and_finite(figures: dict[str, Any]):
    assert list(figures["methods"]) == ["finetune", "pgd", "free_at", "llr"]
    assert list(figures["pieces"]) == ["update=sam"]
    for row in [*figures["methods"].values(), *figures["pieces"].values()]:
        for key in (
            "over_floor",
            "over_bare",
            "over_bare_plain",
            "over_plain",
            "seconds",
            "peak_mib",
        ):
            assert row[key] > 0 and math.isfinite(row[key])
        assert row["flops_over_ideal"] == pytest.approx(1, rel=0.05)
    assert math.isfinite(figures["framework_overhead"])
    assert figures["methods"]["finetune"]["over_plain"] == 1
    assert 0 < figures["ascent_memory"] < 1


def test_units_are_timed_where_a_method_has_them(figures: dict[str, Any]):
    assert figures["methods"]["free_at"]["units"] == {"fresh": 3, "step": 3}
    assert set(figures["unit_seconds"]["default"]) == {"fresh", "step", "ascent"}
    assert set(figures["unit_seconds"]["plain"]) == set(TIMED) - {"forward"}


def test_the_table_has_a_row_for_each(figures: dict[str, Any]):
    lines = report.table(figures["methods"] | figures["pieces"]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("`")[1] for line in lines[2:]] == [
        "finetune", "pgd", "free_at", "llr", "update=sam",
    ]  # fmt: skip


def test_standard_output_holds_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, figures: dict[str, Any]
):
    monkeypatch.setattr(cost, "measure", lambda arguments: figures)
    cost.main(["--json"])
    assert json.loads(capsys.readouterr().out)["methods"].keys() == figures["methods"].keys()


def test_an_unknown_method_is_refused_by_name(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cost.parse(["--methods", "pgd,pdg"])
    assert "pdg" in capsys.readouterr().err
