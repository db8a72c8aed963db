"""The report: stands alone, escapes what users wrote, says what the results say, and its charts hold their bounds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.builds import Engine
from farm.errors import Unavailable
from farm.index import Sweep, Trial
from farm.sweeping.answer import answers, manifest
from farm.sweeping.charts import WIDTH, Dot, Lane, cost_bar, lanes, scale, scatter
from farm.sweeping.report import render, write_report
from farm.sweeping.results import SweepResults, TrialResult
from farm.sweeping.rows import rows_of

HOSTILE = "<script>alert('x')</script>&\"'.pt2"


def trial(number: int, level: int, tf32: bool, **more: object) -> TrialResult:
    settings = {"optimization_level": level, "disable_tf32": tf32}
    made = Trial(number, str(more.pop("model", "m.pt2")), "sm_89", settings, f"k{number}", f"r{tf32}", "new", build="b")
    size, seconds = (48_000_000, 3.0) if tf32 else (44_000_000, 1.5)
    engine = Engine(
        f"r{tf32}",
        "sha256:" + f"{int(tf32) + 10:02x}" * 32,
        size,
        {"toolchain": "tensorrt_rtx==1.7.1.116"},
        0.0,
        seconds,
    )
    return TrialResult(made, **{"outcome": "built", "engine": engine, "seconds": seconds, **more})  # type: ignore[arg-type]


def results(*trials: TrialResult, model: str = "m.pt2") -> SweepResults:
    spec = {
        "models": [model],
        "targets": ["sm_89"],
        "settings": {},
        "grid": [
            {"name": "optimization_level", "values": [1, 2]},
            {"name": "disable_tf32", "values": [False, True]},
        ],
    }
    return SweepResults(Sweep("sabc", 1.8e9, spec), trials)


def four(**more: object) -> SweepResults:
    return results(
        trial(1, 1, False),
        trial(2, 1, True),
        trial(3, 2, False, same_as=1, seconds=0.0),
        trial(4, 2, True, same_as=2, seconds=0.0),
    )


class Outline(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_stands_alone() -> None:
    page = render(four())
    assert Outline(page).links == []
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page and 'name="viewport"' in page and "prefers-color-scheme: dark" in page


def test_it_says_what_came_out() -> None:
    page = render(four())
    assert "optimization_level made no difference: 4 configurations came to 2 distinct builds." in page
    assert "from 44.0 MB" in page and "to 48.0 MB" in page and "from 1.5 s" in page
    assert "4.5 s spent on this sweep" in page and "4.5 s saved by reuse" in page
    assert "tensorrt_rtx==1.7.1.116" in page
    assert page.count('<td class="first"') == 2
    assert "All 4 configurations" in page


def test_equal_configurations_are_shown_as_such() -> None:
    assert "as no 1" in render(four()) and "as no 2" in render(four())


@pytest.mark.parametrize("where", ["model", "error", "settings"])
def test_what_users_wrote_is_escaped(where: str) -> None:
    one = trial(1, 1, False, model=HOSTILE)
    failed = trial(2, 1, True, model=HOSTILE, outcome="failed", engine=None, error=HOSTILE, hint=HOSTILE)
    found = results(one, failed, model=HOSTILE)
    found.sweep.spec["settings"]["device"] = HOSTILE  # type: ignore[index]
    page = render(found)
    assert Outline(page).tags.count("script") == 1
    assert "alert('x')" not in page


def test_a_failed_build_has_its_reason_and_no_dot() -> None:
    found = results(
        trial(1, 1, False), trial(2, 1, True, outcome="failed", engine=None, error="no FP32 GEMM", hint="sm_80")
    )
    page = render(found)
    assert "What did not build" in page and "no FP32 GEMM" in page and "m.pt2 for sm_89 (disable_tf32)" in page
    assert page.count("<polygon") == 0


def test_a_sweep_without_any_engine_still_has_a_page() -> None:
    page = render(results(trial(1, 1, False, outcome="failed", engine=None, error="no")))
    assert "Trade-offs" not in page and "no" in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    write_report(path, four())
    before = path.read_text("utf-8")
    assert before.startswith("<!doctype html>") and before.endswith("</html>\n")
    with pytest.raises(Unavailable) as error:
        write_report(tmp_path / "no" / "r.html", four())
    assert "--report" in error.value.hint
    assert [item.name for item in tmp_path.iterdir()] == ["r.html"]


amounts = st.floats(min_value=1e-3, max_value=1e12)


@given(st.lists(amounts, min_size=1, max_size=20), st.booleans())
def test_a_scale_holds_every_value_between_its_ends(values: list[float], zero: bool) -> None:
    made = scale(values, 10, 110, zero=zero)
    assert all(10 - 1e-6 <= made.at(value) <= 110 + 1e-6 for value in values)
    assert list(made.ticks) == sorted(made.ticks) and 2 <= len(made.ticks) <= 14
    assert made.low == 0.0 if zero else made.low <= min(values)


dots = st.builds(Dot, st.integers(0, 9), amounts, st.floats(0.001, 1e5), st.text(max_size=30))


@given(st.lists(dots, min_size=1, max_size=8), st.text(max_size=20).filter(str.isprintable))
def test_charts_are_well_formed_and_stay_inside(some: list[Dot], label: str) -> None:
    printable = [Dot(dot.series, dot.size, dot.seconds, "".join(filter(str.isprintable, dot.title))) for dot in some]
    for chart in (scatter(printable, label), lanes([Lane(label, tuple(printable))], label), cost_bar(3.0, 1.0)):
        root = ElementTree.fromstring(chart)
        height = float(root.attrib["viewBox"].split()[3])
        for circle in root.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= WIDTH and 0 <= float(circle.attrib["cy"]) <= height


def test_series_differ_in_shape_as_well_as_in_colour() -> None:
    drawn = scatter([Dot(n, 1e6, 1.0, "") for n in range(6)], "")
    assert len(set(re.findall(r'class="dot (s\d)"', drawn))) == 6
    assert drawn.count("<circle") == 1 and drawn.count("<polygon") == 4


def test_places_that_share_their_builds_have_an_answer_each() -> None:
    """A copy of a model, or a GPU beside its compute capability: built once, and asked about twice."""
    twins = {"model": "copy.pt2", "seconds": 0.0}
    mine = [trial(1, 1, False), trial(2, 1, True)]
    found = results(*mine, trial(3, 1, False, same_as=1, **twins), trial(4, 1, True, same_as=2, **twins))
    told = answers(found)
    assert [answer.place[0] for answer in told] == ["m.pt2", "copy.pt2"]
    assert [[one.number for one, _ in answer.ranking.ranked] for answer in told] == [[1, 2], [3, 4]]
    assert [answer.settings(answer.ranking.ranked[0][0].number) for answer in told] == ["disable_tf32=false"] * 2
    models = [(row.result.trial.model, row.shared) for row in rows_of(found)]
    assert models == [("m.pt2", 1), ("m.pt2", 1), ("copy.pt2", 1), ("copy.pt2", 1)]
    assert "m.pt2" in manifest(found) and "copy.pt2" in manifest(found)
    assert "copy.pt2 on sm_89" in render(found)
