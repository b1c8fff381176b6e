"""Pictures hold the figures of the sweep, as SVG and by matplotlib alike."""

import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
import sweeps
from made import run, scores
from matplotlib.figure import Figure

from lit_adv.reports.pictures import attacked, cost, heat, losses, over, scale
from lit_adv.reports.pictures.attacked_drawn import UnderAttackDrawn
from lit_adv.reports.pictures.colours import colour, ink
from lit_adv.reports.pictures.cost_drawn import CostDrawn
from lit_adv.reports.pictures.heat_drawn import HeatDrawn
from lit_adv.reports.pictures.losses_drawn import LossesDrawn
from lit_adv.reports.pictures.over_drawn import OverDrawn
from lit_adv.reports.report import draw, pictures, read
from lit_adv.reports.sweep import Sweep


def count(svg: str, kind: str) -> int:
    return len(re.findall(rf'<\w+ class="{kind}[" ]', svg.partition('role="img"')[2]))


def test_a_swept_number_has_a_dot_per_run_and_a_line_through_the_means(flooded: Sweep):
    (found,) = over.find(flooded, flooded.problems[0])
    (line,) = found.lines
    assert (found.key, found.metric) == ("flood.b", "test/accuracy")
    assert not found.log and found.left_out == 0
    assert [x for x, _ in line.means] == sweeps.LEVELS and len(line.dots) == 100
    at = [sweeps.accuracy(0.2, seed) - 0.005 for seed in (1, 2)]
    assert line.means[20][1].mean == pytest.approx(fmean(at))
    assert line.means[20][1].sd == pytest.approx(stdev(at))
    assert line.means[50][1].n == 1  # its other run failed
    assert len(found.validation) == 51

    svg = OverDrawn(found).html()
    assert count(svg, "dot") == 100 and count(svg, "band") == 2
    lines = re.findall(r'class="line \w+"[^>]* d="M([^"]+)"', svg.partition('role="img"')[2])
    assert sorted(path.count("L") + 1 for path in lines) == [2, 51, 51]


def test_plain_training_and_the_best_are_marked(flooded: Sweep):
    (found,) = over.find(flooded, flooded.problems[0])
    assert found.plain and found.plain[0] == "plain fine-tuning"
    assert (found.plain[1].mean, found.plain[1].n) == (pytest.approx(0.85), 2)
    assert found.best and found.best[:2] == (sweeps.BEST, pytest.approx(0.9))
    assert "best by mean val/accuracy, fixed, flood.b=0.14" in OverDrawn(found).caption


def test_other_differences_make_lines_and_a_search_at_random_makes_none(
    grid: Sweep, tmp_path: Path
):
    rates, levels = over.find(grid, grid.problems[0])[::-1]
    assert (rates.key, rates.log) == ("optimizer.lr", True)
    assert (levels.key, levels.log) == ("flood.b", False)
    named = ("optimizer.lr=0.0001", "optimizer.lr=1e-5", "optimizer.lr=0.001")
    assert tuple(line.name for line in levels.lines) == named
    assert levels.plain is None  # every rate has a baseline of its own
    assert count(OverDrawn(levels).html(), "mark") == 11 + 1

    for k in range(6):
        options = {"optimizer.lr": 0.1 + k / 7, "model.dropout": k / 11, "model.width": 3 + k}
        at = {"overridden": list(options), "val": scores(0.9 - k / 50), "test": scores(0.8)}
        run(tmp_path / str(k), options=options, **at)
    search = read([tmp_path])
    found = over.find(search, search.problems[0])
    assert [each.key for each in found] == ["model.dropout", "model.width", "optimizer.lr"]
    assert all(each.scattered and len(each.lines[0].dots) == 6 for each in found)
    assert heat.find(search, search.problems[0]) == []


def test_of_many_lines_the_best_are_drawn_and_the_others_told(tmp_path: Path):
    for k in range(8):
        for b in (0.0, 0.1):
            options = {"flood.b": b, "model.name": f"m{k}"}
            chosen = {"flood": "fixed"}
            run(tmp_path / f"{k}{b}", chosen, options, val=scores(k / 10), test=scores(0.5))
    found = read([tmp_path])
    (picture,) = over.find(found, found.problems[0])
    assert [line.name for line in picture.lines] == [f"model.name=m{k}" for k in (7, 6, 5, 4, 3, 2)]
    assert picture.left_out == 2 and "2 more are in the table only" in OverDrawn(picture).caption


def test_a_heat_map_has_a_cell_per_pair_with_its_mean_written_in_it(grid: Sweep):
    (found,) = heat.find(grid, grid.problems[0])
    assert (found.across, found.up) == ("flood.b", "optimizer.lr")
    assert (len(found.columns), len(found.rows), len(found.cells)) == (4, 3, 11)
    assert found.best == (0.2, 1e-4)
    assert found.cells[0.2, 1e-4].mean == pytest.approx(0.33)
    drawn = HeatDrawn(found)
    svg = drawn.html()
    assert count(svg, "empty") == 1 and count(svg, "frame") == 11 and count(svg, "best") == 0
    assert svg.count('class="best"') == 1 and ">0.330</text>" in svg
    assert "the best by mean val/loss: flood.b = 0.2, optimizer.lr = 0.0001" in drawn.caption
    assert found.shade(found.cells[0.2, 1e-4]) == 1


def test_letters_can_be_read_on_every_colour():
    def luminance(hexadecimal: str) -> float:
        parts = [int(hexadecimal[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for share in (k / 100 for k in range(101)):
        light, dark = sorted((luminance(colour(share)), luminance(ink(share))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.4, share  # WCAG asks for 4.5


def test_methods_are_set_against_their_time_and_the_front_is_marked(methods: Sweep):
    (found,) = cost.find(methods, methods.problems[0])
    told = {point.name: point for point in found.points}
    assert [point.letter for point in found.points] == ["A", "B", "C", "D"]
    assert [name for name, point in told.items() if not point.front] == ["pgd"]
    assert told["smart"].seconds.mean == 60.0 and told["smart"].seconds.sd == pytest.approx(1)
    assert told["smart"].metric.mean == pytest.approx(0.9)
    svg = CostDrawn(found).html()
    assert count(svg, "point") == 4 and svg.count('class="point front"') == 3
    assert count(svg, "bar") == 8


def test_a_front_keeps_equals_and_turns_with_the_metric():
    assert cost.front([(1, 0.5), (1, 0.5), (2, 0.5)], less=False) == [True, True, False]
    assert cost.front([(1, 0.5), (2, 0.4), (3, 0.45)], less=True) == [True, True, False]


def test_a_number_and_its_baseline_are_no_comparison_of_methods(flooded: Sweep):
    assert cost.find(flooded, flooded.problems[0]) == []


def test_learning_curves_are_of_the_best_the_worst_and_the_baseline(flooded: Sweep):
    (found,) = losses.find(flooded, flooded.problems[0])
    assert {curve.number: curve.role for curve in found.shown} == {
        1: "baseline",
        16: "best by val/accuracy",
        52: "worst by val/accuracy",
    }
    best = next(curve for curve in found.curves if curve.number == 16)
    assert (best.level, best.since, found.accordance) == (0.14, 2, "accordance/cross")
    assert best.train[0] == (0.0, 1.0) and len(best.train) == 10
    assert best.validation == [(4.0, pytest.approx(0.6)), (9.0, pytest.approx(0.35))]
    assert len(found.curves) == 52 and found.left_out == 0
    svg = LossesDrawn(found).html()
    for number in (2, 16):
        parts = re.findall(rf'<\w+ data-setting="{number}"( hidden)?>', svg)
        assert len(parts) == 4 and all(bool(hidden) == (number == 2) for hidden in parts)


def test_curves_are_means_at_common_steps(tmp_path: Path):
    for seed, last in ((1, 4), (2, 2)):
        rows = [{"step": s, "train/loss": s + seed, "val/loss": 1.0} for s in range(last)]
        run(tmp_path / str(seed), seed=seed, val=scores(0.5), test=scores(0.5), rows=rows)
    sweep = read([tmp_path])
    (found,) = losses.find(sweep, sweep.problems[0])
    assert found.curves[0].train == [(0.0, 1.5), (1.0, 2.5)]


def test_attacks_have_a_bar_for_what_was_measured(methods: Sweep):
    (found,) = attacked.find(methods, methods.problems[0])
    assert len(found.rows) == 8
    plain, fooled = found.rows[0], found.rows[1]
    assert (plain.name, plain.attack) == ("plain fine-tuning", "pwws, 100 examples")
    assert plain.attacked and plain.attacked.mean == pytest.approx(0.5) and not plain.calibrated
    assert fooled.attacked and fooled.attacked.mean == pytest.approx(0.4)
    assert fooled.attacked.sd == pytest.approx(0.1)
    assert fooled.calibrated and fooled.calibrated.mean == pytest.approx(0.35)
    svg = UnderAttackDrawn(found).html()
    assert count(svg, "attacked") == 8 and count(svg, "again") == 4


def test_axes_have_round_figures_within_their_ends():
    for low, high in ((0.0, 0.5), (0.8437, 0.9312), (-0.05, 0.4), (30.0, 31.7), (0, 12_345)):
        ticks = scale.Scale(low, high).ticks()
        assert 3 <= len(ticks) <= 8 and low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9
    assert scale.Scale(1.0, 100.0, log=True).share(10.0) == pytest.approx(0.5)
    assert scale.around([0.7]).low < 0.7 < scale.around([0.7]).high
    assert scale.around([0.0]).low < 0 < scale.around([0.0]).high


def test_the_png_shows_the_same_figures(flooded: Sweep):
    (found,) = over.find(flooded, flooded.problems[0])
    figure = Figure()
    OverDrawn(found).draw(figure)
    (axes,) = figure.axes
    drawn = {str(line.get_label()): line for line in axes.get_lines()}
    assert len(axes.collections[0].get_offsets()) == 100  # pyright: ignore
    means = [spread.mean for _, spread in found.lines[0].means]
    assert list(drawn["test/accuracy"].get_ydata()) == means  # pyright: ignore
    assert {"val/accuracy", "plain fine-tuning", "best by val/accuracy"} <= set(drawn)


def test_every_picture_is_written_as_png(
    flooded: Sweep, grid: Sweep, methods: Sweep, tmp_path: Path
):
    names: list[str] = []
    for sweep in (flooded, grid, methods):
        for picture in pictures(sweep):
            path = tmp_path / f"{len(names)}.png"
            draw(picture, path)
            assert path.read_bytes().startswith(b"\x89PNG")
            names.append(picture.name)
    swept = ["heat-flood.b-optimizer.lr", "over-flood.b", "over-optimizer.lr"]
    assert names == ["over-flood.b", "losses", *swept, "time", "attacks"]
