"""The container: what goes in comes out, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.container import MAGIC, MAX_HEADER, SCHEMA, Header, header_for, pack, pack_to, read_header, unpack, unpack_to
from farm.errors import BadInput, CorruptBlob, FarmError

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PLAN = b"vtrt" + bytes(range(256)) * 5
BINDINGS = {
    "inputs": [{"name": "x", "dtype": "FLOAT", "shape": [-1, 16]}],
    "outputs": [{"name": "y", "dtype": "FLOAT", "shape": [-1, 8]}],
}
HEAD = 48
"""Bytes before the header: magic, schema, length, digest."""


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def header(plan: bytes = PLAN, **changes: Any) -> Header:
    values: dict[str, Any] = {
        "key": digest("a"),
        "recipe": digest("b"),
        "toolchain": "tensorrt_rtx==1.7.1.116",
        "target": "sm_89",
        "bindings": BINDINGS,
        "detail": {"settings": {"optimization_level": 3}},
    }
    return header_for(plan, **(values | changes))


def framed(body: bytes, plan: bytes = PLAN, schema: int = SCHEMA) -> bytes:
    """A container whose frame is right, whatever its header says."""
    return struct.pack(">8sII32s", MAGIC, schema, len(body), hashlib.sha256(body).digest()) + body + plan


def body_with(**changes: Any) -> bytes:
    values = vars(header()) | changes
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, as pipes and sockets may."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def read(self, size: int = -1) -> bytes:
        taken = self._left[: min(size, 7) if size >= 0 else 7]
        self._left = self._left[len(taken) :]
        return taken


def test_a_plan_and_its_header_come_back() -> None:
    found, plan = unpack(pack(header(), PLAN))
    assert found == header() and bytes(plan) == PLAN
    assert found.engine == "sha256:" + hashlib.sha256(PLAN).hexdigest() and found.size == len(PLAN)


def test_the_plan_in_memory_is_a_view() -> None:
    whole = pack(header(), PLAN)
    _, plan = unpack(whole)
    assert plan.obj is whole, "a plan of gigabytes must not be copied to be looked at"


def test_streams_give_the_same_bytes_as_memory() -> None:
    packed, plan = io.BytesIO(), io.BytesIO()
    pack_to(packed, header(), io.BytesIO(PLAN))
    assert packed.getvalue() == pack(header(), PLAN)
    assert unpack_to(Trickle(packed.getvalue()), plan) == header()  # type: ignore[arg-type]
    assert plan.getvalue() == PLAN
    assert bytes(unpack(io.BytesIO(packed.getvalue()))[1]) == PLAN


def test_the_header_alone_leaves_the_plan_unread() -> None:
    source = io.BytesIO(pack(header(), PLAN))
    assert read_header(source) == header() and source.read() == PLAN


def test_equal_headers_are_equal_bytes() -> None:
    """Order of names and tuples for lists must not make another file of one engine."""
    one = header(detail={"a": (1, 2), "b": None})
    other = header(detail={"b": None, "a": [1, 2]})
    assert one == other and pack(one, PLAN) == pack(other, PLAN)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BINDING = st.fixed_dictionaries(
    {"name": st.text(max_size=5), "dtype": st.text(max_size=5), "shape": st.lists(st.integers(-1, 9), max_size=4)}
)
SIDES = st.fixed_dictionaries({"inputs": st.lists(BINDING, max_size=2), "outputs": st.lists(BINDING, max_size=2)})


@PATIENT
@given(
    plan=st.binary(max_size=300),
    detail=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    bindings=SIDES,
    toolchain=st.text(max_size=9),
    target=st.text(max_size=9),
)
def test_round_trip(plan: bytes, **changes: Any) -> None:
    given_header = header(plan, **changes)
    found, view = unpack(pack(given_header, plan))
    assert found == given_header and bytes(view) == plan
    assert pack(found, bytes(view)) == pack(given_header, plan)


@PATIENT
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_words(data: bytes) -> None:
    for source in (data, io.BytesIO(data)):
        with pytest.raises((BadInput, CorruptBlob)):
            unpack(source)


@PATIENT
@given(st.binary(max_size=120), st.booleans())
def test_random_headers_are_refused_in_words(body: bytes, damaged: bool) -> None:
    whole = framed(body)
    with pytest.raises((BadInput, CorruptBlob)):
        unpack(whole[:30] + b"\0" + whole[31:] if damaged else whole)


@PATIENT
@given(at=st.integers(0), value=st.integers(1, 255))
def test_one_changed_byte_anywhere_is_noticed(at: int, value: int) -> None:
    whole = bytearray(pack(header(), PLAN))
    whole[at % len(whole)] ^= value
    for source in (bytes(whole), io.BytesIO(bytes(whole))):
        with pytest.raises((BadInput, CorruptBlob)):
            unpack(source)


@PATIENT
@given(st.integers(0))
def test_every_truncation_is_noticed(cut: int) -> None:
    whole = pack(header(), PLAN)
    short = whole[: cut % len(whole)]
    for source in (short, io.BytesIO(short)):
        with pytest.raises(CorruptBlob if short else BadInput, match="cut short" if short else "no engine container"):
            unpack(source)


def test_trailing_bytes_are_noticed() -> None:
    whole = pack(header(), PLAN) + b"\n"
    for source in (whole, io.BytesIO(whole)):
        with pytest.raises(CorruptBlob, match="after the end"):
            unpack(source)


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04" + b"\0" * 99, b"\x80\x04\x95" + b"\0" * 99, PLAN, b"\x89PNG\r\n\x1a\n" + b"\0" * 99]
)
def test_other_files_are_no_containers(data: bytes) -> None:
    with pytest.raises(BadInput, match="no engine container"):
        unpack(data)


def test_a_newer_schema_says_update() -> None:
    with pytest.raises(BadInput, match="schema 2, and this farm reads up to 1") as caught:
        unpack(framed(b"whatever a later farm writes", schema=SCHEMA + 1))
    assert "update farm" in caught.value.hint


def test_a_huge_header_is_refused_unread() -> None:
    """Its length is believed only up to a bound: no reader allocates what a hostile file asks for."""
    start = struct.pack(">8sII32s", MAGIC, SCHEMA, MAX_HEADER + 1, b"\0" * 32)
    source = io.BytesIO(start + b"x" * 100)
    with pytest.raises(CorruptBlob, match="damaged"):
        unpack(source)
    assert source.tell() == HEAD
    with pytest.raises(BadInput, match="longer than"):
        pack(header(detail={"text": "x" * MAX_HEADER}), PLAN)


def test_a_huge_size_is_not_believed() -> None:
    with pytest.raises(CorruptBlob, match="cut short"):
        unpack(io.BytesIO(framed(body_with(size=1 << 60))))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{}", "fields"),
        (b"[1]", "fields"),
        (body_with(more=1), "fields"),
        (body_with(key="sha256:" + "A" * 64), "key"),
        (body_with(engine="b3:" + "a" * 64), "engine"),
        (body_with(size=True), "size"),
        (body_with(size=-1), "size"),
        (body_with(target=None), "target"),
        (body_with(bindings={"inputs": []}), "bindings"),
        (body_with(bindings={"inputs": [{"name": "x"}], "outputs": []}), "bindings"),
        (body_with(detail=[]), "detail"),
        (body_with().replace(b'"size":', b'"size": '), "canonical"),
        (body_with().replace(b'{"bindings"', b'{"key":"x","bindings"'), "canonical"),
        (body_with(detail={"x": float("nan")}), "JSON"),
        (b"[" * 100_000, "JSON"),
        ("é".encode(), "JSON"),
    ],
)
def test_headers_that_make_no_sense(body: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        unpack(framed(body))


@pytest.mark.parametrize(
    "detail", [{"x": float("inf")}, {"x": b"raw"}, {1: "x"}, {"x": {"y": {1, 2}}}, {"x": 10**5000}]
)
def test_what_json_would_bend_is_refused(detail: Any) -> None:
    """``json`` would write the key 1 as "1" and read back another header than the one that was given."""
    with pytest.raises(BadInput, match="JSON"):
        header(detail=detail)


def test_a_header_is_for_its_plan_alone() -> None:
    with pytest.raises(BadInput, match="another plan"):
        pack(header(), PLAN[:-1] + b"!")
    for wrong in (PLAN[:-1], PLAN + b"!", PLAN[:-1] + b"!"):
        with pytest.raises(CorruptBlob):
            pack_to(io.BytesIO(), header(), io.BytesIO(wrong))


def test_errors_say_what_to_do() -> None:
    for data in (b"", b"x", pack(header(), PLAN)[:100], pack(header(), PLAN) + b"x"):
        with pytest.raises(FarmError) as caught:
            unpack(data)
        assert caught.value.hint
