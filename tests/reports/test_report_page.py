"""report.html tells what came out, lets nothing of a run become a tag, and fetches nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made import done, run, scores

from lit_adv.reports import page
from lit_adv.reports.report import pictures, read
from lit_adv.reports.sweep import Sweep

HOSTILE = "<script>alert(1)</script><img src='http://x/y' onerror=alert(1)> \" ' & $title ${x} ]]>"
EMPTY = {"br", "input", "link", "meta"}  # elements without an end


class Page(HTMLParser):
    """The page as a browser takes it: its elements, its text, the rows of its tables."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.seen = ""
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.seen += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def attributes(self, *names: str) -> list[str]:
        return [attrs[n] or "" for _, attrs in self.elements for n in names if n in attrs]


def written(sweep: Sweep, folder: Path, title: str = "sweep") -> Page:
    drawn = [(picture, f"{picture.name}.png") for picture in pictures(sweep)]
    page.write(folder / "report.html", sweep, drawn, title)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown(flooded: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(flooded, tmp_path_factory.mktemp("page"))


def test_the_best_is_told_with_the_split_it_was_chosen_by(shown: Page):
    assert "104 runs of 52 settings" in shown.seen
    assert "Best by val/accuracy: its test/accuracy" in shown.seen
    assert "#16 fixed, flood.b=0.14; val/accuracy 0.9050 \N{PLUS-MINUS SIGN} 0.0071" in shown.seen
    assert "102 of 104" in shown.seen and "1 failed, 1 running" in shown.seen
    assert "95 % [-0.0135, +0.1135], 2 paired seeds" in shown.seen
    assert "chosen by the mean of val/accuracy; test/accuracy had no part in it." in shown.seen
    assert "there being 49 of them: 2.5 of so many would leave out 0 on average" in shown.seen
    assert "share the best mean" not in shown.seen


def test_tables_hold_all_settings_and_all_runs(shown: Page):
    heads = [row for row in shown.rows if row[0] in ("#", "run")]
    figures = ["val/accuracy", "test/accuracy"]
    told = ["seeds", *figures, "to baseline [95 %]", "pairs", "seconds"]
    assert heads == [
        ["#", "role", "flood", "flood.b", *told],
        ["run", "state", "flood", "flood.b", "seed", *figures, "seconds"],
    ]
    assert len(shown.rows) == 2 + 52 + 104
    found = {row[0]: row for row in shown.rows}
    assert found["#1"][1:5] == ["baseline", "none", "-", "2"]
    assert found["#16"][1:4] == ["best (val)", "fixed", "0.14"]
    assert found["#52"][4] == "11 failed"  # one seed, and a line of its own for the failed one
    assert found["#52"][7:9] == ["-", "1"]
    failed = next(row for row in shown.rows if row[1].startswith("failed"))
    assert failed[1] == "failedloss is not finite: nan <at> step 3"


def test_nothing_is_fetched_and_links_stay_in_the_folder(
    flooded: Sweep, methods: Sweep, tmp_path: Path
):
    for sweep in (flooded, methods):
        found = written(sweep, tmp_path)
        links = found.attributes("src", "href", "action", "srcset", "poster", "data")
        assert links.count("data:,") == 1
        assert all(link == "data:," or link.startswith(("./", "../")) for link in links)
        source = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert not re.search(r"url\(|@import|https?:|//\w", source) and "$" not in source
    assert "../" in "".join(links) and "/attacks/textfooler/attack.html" in "".join(links)
    policies = [attrs["content"] for _, attrs in found.elements if "http-equiv" in attrs]
    assert policies[0] and policies[0].startswith("default-src 'none';")
    assert ("html", {"lang": "en"}) in found.elements
    assert [tag for tag, _ in found.elements].count("title") > 1  # those of the dots too


def test_every_picture_says_what_it_shows(methods: Sweep, grid: Sweep, tmp_path: Path):
    for sweep in (methods, grid):
        found = written(sweep, tmp_path)
        images = [attrs for _, attrs in found.elements if attrs.get("role") == "img"]
        assert len(images) == len(pictures(sweep)) and all(i["aria-label"] for i in images)


def test_no_text_of_a_run_becomes_a_tag(tmp_path: Path):
    for k, hostile in enumerate((HOSTILE, "harmless")):
        sweep = tmp_path / f"{k}"
        for at, name in enumerate((hostile, "other")):
            options = {"model.name": name, "flood.b": 0.1 * at}
            told = {"val": {hostile: 0.5, "accuracy": 0.5 + at / 9}, "test": scores(0.5)}
            rows = [{"step": s, "train/loss": 1.0} for s in range(3)]
            attacks = {"recipe": (90.0, 40.0, 30.0)}
            folder = sweep / f"{at} #?%<b>&'\"=,"
            chosen = {"method": hostile, "data": hostile, "flood": "fixed"}
            run(folder, chosen, options, rows=rows, attacks=attacks, **told)
        run(sweep / "failed", {"method": hostile}, failure=hostile)
    first, second = (written(read([tmp_path / f"{k}"]), tmp_path, HOSTILE) for k in range(2))
    assert [tag for tag, _ in first.elements] == [tag for tag, _ in second.elements]
    assert [tag for tag, _ in first.elements].count("script") == 1
    assert first.seen.count(HOSTILE) > 5
    links = [link for link in first.attributes("href") if "failed" not in link]
    assert "./0/0%20%23%3F%25%3Cb%3E%26%27%22%3D%2C" in links


def test_a_sweep_of_which_nothing_has_ended_yet_is_told(tmp_path: Path):
    run(tmp_path / "0", rows=[{"step": 0, "train/loss": 1.0}])
    run(tmp_path / "1", failure="no space left on device")
    found = written(read([tmp_path]), tmp_path)
    assert "0 of 2" in found.seen and "no space left on device" in found.seen
    assert "There is nothing to draw yet." in found.seen
    assert "Running: without results so far" in found.seen


def test_runs_without_validation_have_no_best(tmp_path: Path):
    for b in (0.0, 0.1):
        run(tmp_path / f"{b}", {"flood": "fixed"}, {"flood.b": b}, test=scores(b))
    found = written(read([tmp_path]), tmp_path)
    assert "No best setting is named" in found.seen and "no validation metric" in found.seen


def test_a_choice_by_the_metric_that_is_shown_is_said_to_be_too_good(tmp_path: Path):
    for b in (0.0, 0.1):
        run(tmp_path / f"{b}", {"flood": "fixed"}, {"flood.b": b}, val=scores(b), test=scores(b))
    found = written(read([tmp_path], "val/accuracy"), tmp_path)
    assert "chosen and shown by the same metric, val/accuracy" in found.seen


def test_equally_good_settings_are_counted(tmp_path: Path):
    for b, value in ((0.0, 0.5), (0.1, 0.7), (0.2, 0.7)):
        run(tmp_path / f"{b}", {"flood": "fixed"}, {"flood.b": b}, **done(value, value))
    seen = written(read([tmp_path]), tmp_path).seen
    assert "2 settings share the best mean of val/accuracy: the first of them is named." in seen


def test_the_page_is_small(report: Path):
    assert report.stat().st_size < 400_000
