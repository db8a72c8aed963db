"""Rows and records: ids, text that any database holds, prefixes as ranges, and the round trip of a request."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import column, create_engine, select, table, text

from farm.builds import BuildRequest
from farm.db import rows
from farm.db.json_text import dump, dump_finite, load
from farm.db.rows import Requests, clean, new_id, request_from, request_json, starts, whole_digest

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def request(**changes: object) -> BuildRequest:
    words = {name: name for name in ("key", "recipe", "program", "program_format", "model", "target", "toolchain")}
    return BuildRequest(**(words | {"told": {}, "profiles": ()} | changes))  # type: ignore[arg-type]


def test_ids_are_short_and_apart() -> None:
    ids = {new_id("b") for _ in range(2000)}
    assert len(ids) == 2000
    assert all(re.fullmatch(r"b[a-z2-7]{12}", one) for one in ids)


@settings(deadline=None)
@given(ANY_TEXT)
def test_clean_text_can_be_stored_anywhere(value: str) -> None:
    stored = clean(value)
    assert "\0" not in stored and stored.encode("utf-8").decode("utf-8") == stored
    assert clean(stored) == stored and len(stored) == len(value)


FINITE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(FINITE)
def test_what_holds_only_finite_numbers_says_the_same_either_way(value: object) -> None:
    fast, slow = load(dump_finite(value)), load(dump(value))
    assert fast == slow and repr(fast) == repr(slow)
    dump_finite(value).encode("utf-8")


@settings(deadline=None)
@given(JSON)
def test_json_is_ascii_and_loses_nothing(value: object) -> None:
    stored = dump(value)
    assert stored.isascii() and "\0" not in stored
    assert load(stored) == value


def test_json_of_sets_is_in_order_and_of_other_things_an_error() -> None:
    assert dump({"ops": frozenset({"b", "a"})}) == '{"ops":["a","b"]}'
    with pytest.raises(TypeError, match="object"):
        dump(object())


@settings(deadline=None)
@given(
    told=st.dictionaries(ANY_TEXT, FINITE, max_size=3), priority=st.integers(-9, 9), custom=st.just({"a.b": "sha256:1"})
)
def test_a_request_comes_back_whole(told: dict[str, object], priority: int, custom: dict[str, str]) -> None:
    """Settings are finite: whoever asks for another is told so before there is a request."""
    one = request(told=told, priority=priority, custom_ops=custom, profiles=({"0": [[1], [2], [4]]},))
    assert request_from(request_json(one)) == one


def test_a_newer_farms_fields_are_left_out() -> None:
    stored = json.loads(request_json(request())) | {"mood": "somebody"}
    assert request_from(json.dumps(stored)) == request()


def test_former_releases_read_a_request_and_theirs_are_read() -> None:
    """They take one without ``parts`` for none, and end its build as a failure of their node."""
    stored = json.loads(request_json(request()))
    assert stored["parts"] == {}
    assert request_from(json.dumps(stored | {"parts": {"graph": "sha256:1"}})) == request()
    assert msgspec.json.decode(msgspec.json.encode(request()))["parts"] == {}


@settings(deadline=None)
@given(prefix=ANY_TEXT, rest=ANY_TEXT, other=ANY_TEXT)
def test_a_prefix_is_a_range(prefix: str, rest: str, other: str) -> None:
    prefix, rest, other = clean(prefix), clean(rest), clean(other)
    names = table("names", column("name"))
    with ENGINE.connect() as connection:
        connection.execute(text("DELETE FROM names"))
        for name in (prefix + rest, other):
            connection.execute(text("INSERT INTO names VALUES (:name)"), {"name": name})
        found = connection.execute(select(names.c.name).where(starts(names.c.name, prefix))).scalars().all()
    assert set(found) == {name for name in (prefix + rest, other) if name.startswith(prefix)}


ENGINE = create_engine("sqlite://")
with ENGINE.begin() as _connection:
    _connection.execute(text("CREATE TABLE names (name TEXT)"))


@pytest.mark.parametrize(
    ("given_", "whole"), [("ab12", "sha256:ab12"), ("sha256:ab", "sha256:ab"), ("sha", "sha"), ("", "")]
)
def test_the_algorithm_may_be_left_out(given_: str, whole: str) -> None:
    assert whole_digest(given_) == whole


def test_requests_are_parsed_once_and_forgotten_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "REMEMBERED_REQUESTS", 2)
    held = Requests()
    parsed = held.parse("b1", request_json(request(model="one")))
    assert held.get("b1") is parsed
    held.keep("b2", request(model="two"))
    held.keep("b3", request(model="three"))
    assert held.get("b1") is None and held.get("b3") is not None
