"""The tables in docs/ are what the raw figures beside the benchmarks say."""

import doctest
import json
from pathlib import Path

import pytest

from benchmarks import flooding_x_report, markdown, presets, robustness_report

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)


def test_accordance_and_flooding():
    runs = flooding_x_report.read()
    page = (DOCS / "flooding-x.md").read_text()
    assert f"\n{flooding_x_report.signals(runs)}\n" in page
    assert f"\n{flooding_x_report.outcomes(runs)}\n" in page
    for data in runs:
        assert (DOCS / f"flooding-x-{data.replace(', ', '-')}.png").is_file(), data


def test_accuracy_under_attack():
    found = robustness_report.read()
    page = (DOCS / "robustness.md").read_text()
    assert f"\n{robustness_report.outcomes(found)}\n" in page
    for data in found:
        assert (DOCS / f"robustness-{data}.png").is_file(), data


def test_presets_against_the_tool():
    rows = json.loads(Path("benchmarks/results/attack/presets.json").read_text())
    assert f"\n{presets.table(rows)}\n" in (DOCS / "robustness.md").read_text()
    assert {row["preset"] for row in rows} == set(presets.PRESETS)


def test_tables_of_a_page():
    assert doctest.testmod(markdown).failed == 0
    page = "<!-- a -->\n1\n<!-- /a -->\n\n<!-- b -->\n<!-- /b -->\n"
    assert markdown.filled(page, {"a": "x", "b": "y"}) == (
        "<!-- a -->\nx\n<!-- /a -->\n\n<!-- b -->\ny\n<!-- /b -->\n"
    )
