"""attack.html says what the attack did, lets nothing of a text run, and fetches nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lit_adv.attacks import page

SUMMARY: dict[str, Any] = {
    "recipe": "textfooler",
    "victim": "outputs/x/export",
    "data": "mr",
    "n": 3,
    "examples": {"succeeded": 2, "failed": 1, "misclassified": 0, "skipped": 0},
    "clean_accuracy": 85.9,
    "accuracy_under_attack": 25.3,
    "success_rate": 70.6,
    "mean_queries": 1083.2,
    "mean_changed": 12.5,
    "mean_similarity": 0.87,
    "seconds": 93.0,
    "queries_per_second": 350.0,
    "calibrated": {"temperature": 1.7, "accuracy_under_attack": 24.7, "success_rate": 71.2},
    "resources": [{"name": "neighbours", "path": "a/b", "sha256": "9f86d081"}],
    "settings": {"limit": None, "name": "http://set/ting"},
    "versions": {"torch": "2.6.0"},
    "notes": ["<b>two</b> left out"],
}
HOSTILE = [
    "<script>alert(1)</script> </dd></article><img src='http://x/y' onerror=alert(1)>",
    "quotes \" ' ` &amp; &lt; & <!-- --> ]]>",
    "$title ${cards} $$ $ %s {tiles} {{}}",
    "\u0647\u0630\u0627 \u0627\u0644\u0641\u064a\u0644\u0645 \u202eturned \u8fd9\u90e8 \U0001f600",
    "lines\none\r\ntwo\rthree\ttab  two blanks ",
    "long" * 2000,
    "",
]
EMPTY = {"br", "hr", "img", "input", "link", "meta", "rect"}  # elements without an end


class Page(HTMLParser):
    """The page as a browser takes it: its elements, and the text inside those asked for."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []  # of each dd.text, in order
        self.marked: list[tuple[str, str]] = []  # (del or ins, what it holds) inside those
        self.seen = ""
        self.feed(source)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs))
        self.elements.append(element)
        if tag not in EMPTY:
            self.open.append(element)
        if element[1].get("class") == "text":
            self.texts.append("")
        if tag in ("del", "ins") and self._inside("text"):
            self.marked.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] not in ("style", "script"):
            self.seen += data
        if self._inside("text"):
            self.texts[-1] += data
            if self.open[-1][0] in ("del", "ins"):
                tag, text = self.marked.pop()
                self.marked.append((tag, text + data))

    def _inside(self, kind: str) -> bool:
        return any(attrs.get("class") == kind for _, attrs in self.open)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


def record(**changes: Any) -> dict[str, Any]:
    plain = {
        "index": 17,
        "label": 1,
        "prediction": 1,
        "outcome": "succeeded",
        "reason": None,
        "first": None,
        "original": "a good film",
        "perturbed": "a fine film",
        "changes": [{"place": 1, "from": "good", "to": "fine"}],
        "marked_original": [["a ", False], ["good", True], [" film", False]],
        "marked_perturbed": [["a ", False], ["fine", True], [" film", False]],
        "new_prediction": 0,
        "words": 3,
        "queries": 57,
        "changed": 1 / 3,
        "similarity": 0.9,
        "truncated": False,
        "calibrated": None,
    }
    return {**plain, **changes}


def untouched(outcome: str, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("perturbed", "marked_original", "marked_perturbed", "new_prediction", "similarity")
    )
    return record(**{**nothing, "outcome": outcome, "changes": [], "changed": 0.0, **changes})


def source(folder: Path, *records: dict[str, Any], names: tuple[str, ...] = ("bad", "good")) -> str:
    page.write(folder / "attack.html", SUMMARY, records, names)
    assert [file.name for file in folder.iterdir()] == ["attack.html"]
    return (folder / "attack.html").read_text(encoding="utf-8")


def read(folder: Path, *records: dict[str, Any], **options: Any) -> Page:
    return Page(source(folder, *records, **options))


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_come_back_exactly_and_bring_no_element(tmp_path: Path, text: str) -> None:
    middle = len(text) // 2
    segments = [[text[:middle], True], [text[middle:], False]]
    hostile = record(
        first=text,
        original=text,
        perturbed=text + "!",
        marked_original=segments,
        marked_perturbed=[*segments, ["!", False]],
        reason=text,
    )
    found = read(tmp_path, hostile, names=(text, text))
    assert found.texts == [text, text, text + "!"]
    harmless = {**hostile, "first": "x", "reason": "x"}
    harmless |= dict.fromkeys(("marked_original", "marked_perturbed"), [["x", bool(text)]])
    tags = [tag for tag, _ in read(tmp_path, harmless).elements]
    assert [tag for tag, _ in found.elements] == tags and tags.count("script") == 1


def test_summary_is_escaped_too(tmp_path: Path) -> None:
    bad = "</title><script>$x"
    summary = {**SUMMARY, "recipe": bad, "victim": bad, "settings": {bad: [bad]}, "notes": [bad]}
    page.write(tmp_path / "attack.html", summary, [], [])
    found = Page((tmp_path / "attack.html").read_text(encoding="utf-8"))
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert found.seen.count(bad) == 6  # title, heading, victim, setting and its value, note


def test_half_a_surrogate_pair_does_not_spoil_the_page(tmp_path: Path) -> None:
    assert read(tmp_path, untouched("failed", original="cut \ud83d off")).texts == [
        "cut \N{REPLACEMENT CHARACTER} off"
    ]


def test_changed_words_are_marked_in_both_texts(tmp_path: Path) -> None:
    found = read(tmp_path, record())
    assert found.texts == ["a good film", "a fine film"]
    assert found.marked == [("del", "good"), ("ins", "fine")]
    assert "57 queries \N{MIDDLE DOT} 33.3% of 3 words changed" in found.seen
    assert "similarity\N{NO-BREAK SPACE}0.90" in found.seen


def test_a_text_left_as_it_was_is_shown_once(tmp_path: Path) -> None:
    left = untouched("failed", perturbed="a good film", new_prediction=1)
    assert read(tmp_path, left).texts == ["a good film"]


def test_every_outcome_has_its_card_and_its_filter(tmp_path: Path) -> None:
    records = [
        record(),
        untouched("failed", new_prediction=1),
        untouched("misclassified", prediction=0),
        untouched("skipped", prediction=None, reason="no words", queries=0),
    ]
    found = read(tmp_path, *records)
    kinds = [card["data-kinds"] for card in found.with_class("card")]
    assert kinds == ["succeeded", "failed", "misclassified", "skipped"]
    filters = [attrs.get("data-show") for tag, attrs in found.elements if tag == "button"]
    assert filters == ["all", *kinds]
    assert found.texts == ["a good film", "a fine film"] + ["a good film"] * 3
    assert "skipped: no words" in found.seen


def test_labels_go_by_name_and_without_one_by_number(tmp_path: Path) -> None:
    def steps(**changes: Any) -> str:
        (line,) = re.findall(r"label \S+ .*", read(tmp_path, record(**changes)).seen)
        return line

    assert steps() == "label good \u2192 predicted good \u2713 \u2192 attacked bad \u2717"
    assert (
        steps(label=7, prediction=-1, new_prediction=None) == "label 7 \u2192 predicted -1 \u2717"
    )


def test_calibrated_outcome_is_told_only_where_it_differs(tmp_path: Path) -> None:
    again = {
        key: record()[key]
        for key in ("outcome", "perturbed", "marked_original", "marked_perturbed", "queries")
    } | {"similarity": None, "changed": 0.1, "new_prediction": 0}
    same, other = record(calibrated=again), untouched("failed", calibrated=again)
    assert "calibrated victim" not in read(tmp_path, same).seen

    found = read(tmp_path, same, other, untouched("failed", calibrated={"outcome": "skipped"}))
    assert found.seen.count("calibrated victim: attack succeeded") == 1
    assert found.seen.count("calibrated victim: skipped") == 1
    assert found.texts[2:] == ["a good film", "a good film", "a fine film", "a good film"]
    assert [card["data-kinds"] for card in found.with_class("card")][1:] == ["failed differs"] * 2


def test_figures_of_the_summary_are_shown(tmp_path: Path) -> None:
    found = read(tmp_path)
    figures = ("85.9%", "25.3%", "60.6 points lost", "24.7%", "1.70", "70.6%", "71.2%", "1,083.2")
    for figure in (*figures, "12.5%", "3 examples", "93 s", "350 queries/s", "similarity 0.87"):
        assert figure in found.seen, figure
    widths = [attrs["width"] for attrs in found.with_class("clean") + found.with_class("again")]
    assert widths == ["85.90%", "24.70%"]
    for detail in (
        "neighbours",
        "a/b",
        "9f86d081",
        "limit",
        "null",
        "2.6.0",
        "<b>two</b> left out",
    ):
        assert detail in found.seen


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_unknown_figures_are_said_to_be_unknown(tmp_path: Path, unknown: float | None) -> None:
    kept = {key: SUMMARY[key] for key in ("recipe", "victim", "data", "n", "examples")}
    summary = {**dict.fromkeys(SUMMARY), **kept}
    summary |= {key: unknown for key, value in SUMMARY.items() if isinstance(value, float)}
    page.write(tmp_path / "attack.html", summary, [], [])
    found = Page((tmp_path / "attack.html").read_text(encoding="utf-8"))
    assert found.seen.count("n/a") == 6 + 1 + 2  # the tiles, the points lost and the bars
    assert "None" not in found.seen and "nan" not in found.seen


def test_no_records_no_cards(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert not found.with_class("card") and "No examples were recorded." in found.seen


def test_nothing_is_fetched_and_the_page_is_complete(tmp_path: Path) -> None:
    text = source(tmp_path, record(), untouched("skipped", original=HOSTILE[0]))
    found = Page(text)
    for _, attrs in found.elements:
        for name in ("src", "href", "action", "srcset", "style"):
            assert re.fullmatch(r"(#example-\d+|data:,)?", attrs.get(name) or ""), attrs
    assert not re.search(r"url\(|@import", text)
    assert ("html", {"lang": "en"}) in found.elements
    policy = next(attrs for _, attrs in found.elements if "http-equiv" in attrs)
    assert (policy["content"] or "").startswith("default-src 'none';")
    assert "textfooler on mr" in found.seen and "$" not in text
