"""What is collected, for any farm: never what may not go, as much as is asked where that can be, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.collection import Choice, Kind, Rules, Thing, Why, bytes_of, choose, is_under, parse_retired, why_kept
from farm.errors import BadInput

NOW, GRACE = 10_000.0, 100.0
NAMESPACES = ("main", "pr")
TOOLCHAINS = ("tensorrt==10.14.1", "tensorrt==10.9.0+cu12", "tensorrt_rtx==1.7.1.116", "")
MOMENTS = st.sampled_from([0.0, 1000.0, 5000.0, NOW - GRACE - 1, NOW - GRACE + 1, NOW])


@st.composite
def farms(draw: st.DrawFn) -> list[Thing]:
    """Rows, of which several may hold the same plan; a plan has one size."""
    count = draw(st.integers(0, 14))
    sizes = draw(st.lists(st.integers(0, 50), min_size=6, max_size=6))
    things = []
    for number in range(count):
        kind = draw(st.sampled_from([Kind.ENGINE, Kind.ENGINE, Kind.PROGRAM, Kind.FORM]))
        plan = draw(st.integers(0, 5)) if kind is Kind.ENGINE else number + 100
        things.append(
            Thing(
                kind=kind,
                place=(f"r{number}", ""),
                version="",
                blobs=(f"b{plan}", f"m{number}"),
                size=sizes[plan] if kind is Kind.ENGINE else draw(st.integers(0, 80)),
                created=draw(MOMENTS),
                used=draw(MOMENTS),
                namespace=draw(st.sampled_from(NAMESPACES)) if kind is Kind.ENGINE else "",
                toolchain=draw(st.sampled_from(TOOLCHAINS)) if kind is Kind.ENGINE else "",
                kept=draw(st.sampled_from(["", "", "", "pinned"])),
            )
        )
    return things


LIMITS = st.one_of(st.none(), st.integers(0, 400))
RULES = st.builds(
    Rules,
    max_bytes=LIMITS,
    max_age=st.one_of(st.none(), st.sampled_from([50.0, 3000.0, 9500.0])),
    quotas=st.sampled_from([NAMESPACES, ("m*", "pr"), ("*",)]).flatmap(
        lambda names: st.dictionaries(st.sampled_from(names), st.integers(0, 200))
    ),
    retired=st.sampled_from([(), (parse_retired("tensorrt<10.10"),), (parse_retired("tensorrt_rtx"),)]),
    namespaces=st.sampled_from([(), (), ("pr",)]),
    grace=st.just(GRACE),
)


def gone_for(choice: Choice, why: Why) -> list[Thing]:
    return [one.thing for one in choice.going if one.why is why]


def shares(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    found: dict[str, list[Thing]] = {}
    for thing in things:
        found.setdefault(thing.blobs[0], []).append(thing)
    return found


@given(farms(), RULES)
def test_nothing_goes_that_may_not(things: list[Thing], rules: Rules) -> None:
    for one in choose(things, rules, NOW).going:
        assert one.thing in things and not one.thing.kept
        assert max(one.thing.created, one.thing.used) < NOW - GRACE
        assert not rules.namespaces or (one.thing.kind is Kind.ENGINE and one.thing.namespace in rules.namespaces)


@given(farms(), RULES)
def test_what_is_said_adds_up(things: list[Thing], rules: Rules) -> None:
    choice = choose(things, rules, NOW)
    looked = [thing for thing in things if rules.looks_at(thing)]
    going = [one.thing for one in choice.going]
    assert len(going) == len(set(going))
    assert choice.bytes == bytes_of(looked)
    assert choice.left == bytes_of(thing for thing in looked if thing not in going)
    assert choice.kept == bytes_of(thing for thing in looked if why_kept(thing, rules, NOW))
    assert choose(list(reversed(things)), rules, NOW) == choice


@given(farms(), RULES)
def test_all_goes_that_is_old_or_retired_and_nothing_else_for_that(things: list[Thing], rules: Rules) -> None:
    choice = choose(things, rules, NOW)
    free = [thing for thing in things if rules.looks_at(thing) and not why_kept(thing, rules, NOW)]
    retired = {t for t in free if t.kind is Kind.ENGINE and any(one.covers(t.toolchain) for one in rules.retired)}
    old = {t for t in free if rules.max_age is not None and t.last < NOW - rules.max_age} - retired
    assert set(gone_for(choice, Why.RETIRED)) == retired and set(gone_for(choice, Why.AGE)) == old


@given(farms(), RULES)
def test_the_budget_is_reached_where_that_can_be_and_by_no_more_than_it_takes(
    things: list[Thing], rules: Rules
) -> None:
    choice = choose(things, rules, NOW)
    looked = [thing for thing in things if rules.looks_at(thing)]
    left = [thing for thing in looked if thing not in {one.thing for one in choice.going}]
    whole = [held for held in shares(left).values() if not any(why_kept(t, rules, NOW) for t in held)]
    if rules.max_bytes is not None and choice.left > rules.max_bytes:
        assert sum(map(bytes_of, whole)) == 0, "more could go"
    for held in shares(gone_for(choice, Why.BYTES)).values():
        assert rules.max_bytes is not None
        assert choice.left + bytes_of(held) > rules.max_bytes, "it could have stayed"


@given(farms(), RULES)
def test_quotas_are_reached_where_that_can_be(things: list[Thing], rules: Rules) -> None:
    choice = choose(things, rules, NOW)
    going = {one.thing: one.why for one in choice.going}
    for namespace, limit in rules.quotas.items():
        mine = [t for t in things if rules.looks_at(t) and is_under(t, namespace)]
        left = [t for t in mine if going.get(t, Why.BYTES) is Why.BYTES]
        whole = [held for held in shares(left).values() if not any(why_kept(t, rules, NOW) for t in held)]
        assert bytes_of(left) <= limit or sum(map(bytes_of, whole)) == 0
        for held in shares([t for t in mine if going.get(t) is Why.QUOTA]).values():
            assert bytes_of(left) + bytes_of(held) > limit, "it could have stayed"
    assert all(going[t] is not Why.QUOTA or any(is_under(t, quota) for quota in rules.quotas) for t in going)


@given(farms(), st.integers(0, 400))
def test_the_least_lately_used_goes_first(things: list[Thing], limit: int) -> None:
    """Whoever stays though it was used before one that went had room when that one was gone."""
    choice = choose(things, Rules(max_bytes=limit, grace=GRACE), NOW)
    going = {one.thing for one in choice.going}
    newest = max((max(t.last for t in held) for held in shares(list(going)).values()), default=0.0)
    for held in shares([thing for thing in things if thing not in going]).values():
        free = not any(why_kept(thing, Rules(grace=GRACE), NOW) for thing in held)
        if free and max(thing.last for thing in held) < newest:
            assert choice.left <= limit
    assert [one.thing.last for one in choice.going] == sorted(one.thing.last for one in choice.going)


@given(farms())
def test_without_limits_nothing_goes(things: list[Thing]) -> None:
    choice = choose(things, Rules(grace=GRACE), NOW)
    assert choice.going == () and choice.left == choice.bytes and not Rules().limits


@pytest.mark.parametrize(
    ("spec", "covered"),
    [
        ("tensorrt", {"tensorrt==10.14.1", "tensorrt==10.9.0+cu12"}),
        ("tensorrt==10.14.1", {"tensorrt==10.14.1"}),
        ("tensorrt==10.14", set()),
        ("tensorrt==10.*", {"tensorrt==10.14.1", "tensorrt==10.9.0+cu12"}),
        ("tensorrt==10.1.*", set()),
        ("tensorrt<10.14", {"tensorrt==10.9.0+cu12"}),
        ("tensorrt<=10.14.1", {"tensorrt==10.14.1", "tensorrt==10.9.0+cu12"}),
        ("tensorrt-rtx", {"tensorrt_rtx==1.7.1.116"}),
    ],
)
def test_toolchains_are_retired_by_version(spec: str, covered: set[str]) -> None:
    assert {text for text in TOOLCHAINS if parse_retired(spec).covers(text)} == covered


@pytest.mark.parametrize(
    "spec", ["", "trt", "tensorrt=10", "tensorrt<", "tensorrt<10.*", "tensorrt==x", "tensorrt==10."]
)
def test_what_names_no_toolchain_is_refused(spec: str) -> None:
    with pytest.raises(BadInput, match="names no toolchains to retire"):
        parse_retired(spec)
