"""The page in a real browser: nothing is asked for, nothing complains, the tables sort."""

from collections.abc import Iterator
from pathlib import Path

import browser
import pytest

EXECUTABLE = browser.found()
pytestmark = pytest.mark.skipif(
    EXECUTABLE is None,
    reason="no Chromium here; to run this test: apt-get install chromium",
)

COLUMN = "[...document.querySelectorAll('.settings tbody tr')].map((r) => r.cells[%d].textContent)"
HEAD = "document.querySelectorAll('.settings thead th')[%d]"


@pytest.fixture
def opened(report: Path, tmp_path: Path) -> Iterator[browser.Browser]:
    found = browser.Browser(str(EXECUTABLE), tmp_path)
    try:
        found.open(report)
        yield found
    finally:
        found.close()


def test_the_report_in_a_browser(opened: browser.Browser, report: Path) -> None:
    # the curve is drawn: its line is as wide as its area, and every run has a dot within it
    assert opened.ask("document.querySelectorAll('.chart .dot').length") == 100
    area, line = (
        opened.ask(f"document.querySelector('figure {part}').getBoundingClientRect().width")
        for part in (".chart", ".inner .line.s0")
    )
    assert 0.9 * area < line <= area > 300

    # sorting, by the pointer and by the keyboard; what has no value comes last either way
    levels = opened.ask(COLUMN % 3)
    assert levels[:3] == ["-", "0", "0.01"]
    opened.ask(f"{HEAD % 3}.querySelector('button').click()")
    assert opened.ask(f"{HEAD % 3}.getAttribute('aria-sort')") == "ascending"
    assert opened.ask(COLUMN % 3) == [*levels[1:], "-"]
    opened.ask(f"{HEAD % 3}.querySelector('button').focus()")
    opened.press("Enter", "\r")
    assert opened.ask(f"{HEAD % 3}.getAttribute('aria-sort')") == "descending"
    assert opened.ask(COLUMN % 3) == [*levels[:0:-1], "-"]
    opened.ask(f"{HEAD % 6}.querySelector('button').click()")  # by test/accuracy
    means = [float(text.split(" ")[0]) for text in opened.ask(COLUMN % 6)]
    assert means == sorted(means)
    assert opened.ask("document.querySelectorAll('[aria-sort]').length") == 1

    # learning curves are shown when they are asked for
    hidden = "document.querySelectorAll('figure [data-setting=\"2\"][hidden]').length"
    assert opened.ask(hidden) == 4
    opened.ask("document.querySelector('[data-setting=\"2\"] .draw').click()")
    assert opened.ask(hidden) == 0

    # a phone: the page itself does not scroll sideways
    opened.call(
        *("Emulation.setDeviceMetricsOverride",),
        **{"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True},
    )
    assert opened.ask("document.documentElement.scrollWidth") <= 360

    assert opened.complaints() == []
    assert opened.requested() == [report.as_uri()]


def test_a_request_or_an_error_would_be_noticed(
    opened: browser.Browser, report: Path, tmp_path: Path
) -> None:
    spoilt, image = tmp_path / "spoilt.html", "http://nowhere.invalid/a.png"
    text = report.read_text().replace("<h1>", f'<h1><img src="{image}">')
    spoilt.write_text(text.replace('"use strict";', '"use strict"; undefined.there();'))
    opened.open(spoilt)
    complaints = " ".join(opened.complaints())
    assert "TypeError" in complaints and "Content Security Policy" in complaints
    spoilt.write_text(text.replace("Content-Security-Policy", "no-policy"))
    opened.open(spoilt)
    assert image in opened.requested()
