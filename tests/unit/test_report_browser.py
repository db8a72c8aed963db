"""The report in a real browser, at a phone's and a desktop's width: no script error, no request, plots drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.sweeping.report import write_report
from farm.sweeps.objectives import parse_constraint
from farm.sweeps.searches import Search
from tests.support.browser import Page, browser, chromium
from tests.sweep_support import stub_farm
from tests.unit.test_searching import latency, searched, spec

pytestmark = pytest.mark.xdist_group("browser")

# What is drawn, and whether any of it, or of the text, is cut off or too small to read.
LOOK = """(() => {
  const wide = document.documentElement.scrollWidth, view = document.documentElement.clientWidth;
  const charts = [...document.querySelectorAll("svg.chart")].map(svg => {
    const box = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    return {
      width: box.width, height: box.height, marks: svg.querySelectorAll(".dot, .bar, .spent, .saved").length,
      right: Math.max(0, ...texts.map(text => text.right)) - box.right, left: box.left,
      least: Math.min(99, ...texts.filter(text => text.height).map(text => text.height)),
    };
  });
  const fill = getComputedStyle(document.querySelector(".dot *")).fill;
  return {wide, view, charts, fill, rows: document.querySelectorAll("#builds tbody tr").length};
})()"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    command = chromium()
    if command is None:
        pytest.skip("there is no Chromium here")
    with browser(command) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two GPUs of a synthetic fleet, its latencies known, some beyond the constraint."""
    folder = tmp_path_factory.mktemp("report")
    farm, dispatch = stub_farm(folder / "farm")
    farm.config = replace(farm.config, concurrency=4)
    dispatch.latency = latency
    asked = replace(
        spec(Search("random", seed=3, builds=20)),
        targets=("l4@tensorrt==10.14.1.48", "a10@tensorrt==10.14.1.48"),
        constraints=(parse_constraint("latency_p99<=8"),),
    )
    write_report(folder / "report.html", searched(farm, asked))
    farm.close()
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_in_a_browser(page: Page, report: Path, width: int) -> None:
    visit = page.open(report, width)
    assert visit.errors == [] and visit.requests == []
    seen: dict[str, Any] = page.evaluate(LOOK)
    assert seen["view"] == width and seen["wide"] == width, "nothing is wider than the screen"
    assert len(seen["charts"]) == 5 and seen["rows"] == 20
    for chart in seen["charts"]:
        assert chart["marks"] > 0 and chart["width"] > 300 and chart["height"] > 10, chart
        assert chart["right"] <= 4 and chart["least"] > 10, chart
    assert seen["fill"] not in ("none", "rgb(0, 0, 0)"), "the styles are applied"


def test_a_click_sorts_and_words_filter(page: Page, report: Path) -> None:
    visit = page.open(report, 1280)
    first = "document.querySelector('#builds tbody tr:not([hidden]) [data-name=latency_p50]').dataset.value"
    page.evaluate(
        "[...document.querySelectorAll('#builds th button')].find(b => b.textContent.includes('p50')).click()"
    )
    values = page.evaluate("[...document.querySelectorAll('[data-name=latency_p50]')].map(c => +c.dataset.value)")
    assert values == sorted(values) and float(page.evaluate(first)) == values[0]
    page.evaluate("(f => { f.value = 'a10'; f.dispatchEvent(new Event('input')) })(document.getElementById('filter'))")
    shown = page.evaluate(
        "[...document.querySelectorAll('#builds tbody tr:not([hidden])')].map(r => r.cells[1].textContent)"
    )
    assert shown and set(shown) == {"a10"} and visit.errors == []
