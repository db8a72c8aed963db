"""The header of a TensorRT-RTX plan."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.builders.plan import CAPABILITY_BITS, HEADER_SIZE, Header, mismatch, read_header


def header(length: int = 424732, version: bytes = b"\x01\x07\x01\x74", mask: int = 4) -> bytes:
    return b"vtrt" + bytes(12) + struct.pack("<Q", length) + version + b"vtrt" + struct.pack("<I", mask)


def test_a_real_header_is_read() -> None:
    # The first 36 bytes of an engine that TensorRT-RTX 1.7.1.116 built for sm_86.
    real = bytes.fromhex("767472740000000002000000000000001c7b060000000000010701747674727404000000")
    assert read_header(real) == Header(424732, "1.7.1.116", ("sm_86",))


@given(st.sets(st.sampled_from(sorted(CAPABILITY_BITS)), min_size=1))
def test_every_set_of_capabilities_is_read_in_order(bits: set[int]) -> None:
    found = read_header(header(mask=sum(bits)))
    assert found.capabilities == tuple(CAPABILITY_BITS[bit] for bit in sorted(bits))
    assert found.unknown == 0


def test_an_unknown_bit_is_kept_apart() -> None:
    assert read_header(header(mask=0x104)).unknown == 0x100


@given(st.binary(max_size=100))
def test_bytes_that_are_no_header_are_a_value_error(start: bytes) -> None:
    if start[:4] == b"vtrt" and len(start) >= HEADER_SIZE:
        return
    with pytest.raises(ValueError, match="a plan"):
        read_header(start)


GOOD = Header(100, "1.7.1.116", ("sm_86", "sm_89"))


def test_a_plan_that_is_as_asked_for_has_no_mismatch() -> None:
    assert mismatch(GOOD, 100, "1.7.1.116", ("sm_86", "sm_89")) is None


@pytest.mark.parametrize(
    ("header", "size", "version", "capabilities", "said"),
    [
        (GOOD, 99, "1.7.1.116", ("sm_86", "sm_89"), "99"),
        (GOOD, 100, "1.7.2.0", ("sm_86", "sm_89"), "1.7.2.0"),
        (GOOD, 100, "1.7.1.116", ("sm_86",), "sm_86+sm_89, not sm_86"),
        (GOOD, 100, "1.7.1.116", ("sm_86", "sm_89", "sm_120"), "not sm_86+sm_89+sm_120"),
        (Header(100, "1.7.1.116", ("sm_86",), 0x400), 100, "1.7.1.116", ("sm_86",), "unknown (0x400)"),
        (Header(100, "1.7.1.116", ()), 100, "1.7.1.116", ("sm_86",), "no GPU"),
    ],
)
def test_each_difference_is_named(
    header: Header, size: int, version: str, capabilities: tuple[str, ...], said: str
) -> None:
    assert said in str(mismatch(header, size, version, capabilities))
