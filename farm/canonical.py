"""The canonical encoding: one value, one byte string; two values never share one.

Every digest that farm compares is taken over this encoding. Each value is written as a type letter, the
length of its body in decimal, ``:``, and the body, so the encoding is prefix-free and injective over its
domain: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, sequences, and mappings with string keys.

``True``, ``1`` and ``1.0`` differ. Floats are written by their bits, so ``0.0`` and ``-0.0`` differ; all
NaNs with the same payload are one. Mappings are sorted by key, sequences keep their order, and lists equal
tuples. Sets are not in the domain: a caller sorts them first, and says so.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

SCHEMA = 1
"""Version of the encoding and of all that is digested over it. A change is a decision: the vectors in
``tests/vectors`` change with it."""


class Encoded(bytes):
    """A value's encoding, which stands for the value in a larger one: what thousands share is encoded once."""


def encode(value: Any) -> bytes:
    """Encode ``value``; ``TypeError`` for anything outside the domain."""
    known = _EXACT.get(type(value))
    return known(value) if known is not None else _encode_kin(value)


# What marks a short body: formatting one anew takes longer than all else that is done to it.
_SHORT = 1024
_LISTS = tuple(b"l%d:" % size for size in range(_SHORT))
_TEXTS = tuple(b"s%d:" % size for size in range(_SHORT))


def as_list(body: bytes) -> bytes:
    """The encoding of a list, from those of its items, joined."""
    size = len(body)
    return _LISTS[size] + body if size < _SHORT else b"l%d:%b" % (size, body)


def _encode_int(value: int) -> bytes:
    known = NUMBERS.get(value)
    if known is not None:
        return known
    body = b"%d" % value
    return b"i%d:%b" % (len(body), body)


def _encode_str(value: str) -> bytes:
    body = value.encode("utf-8", "surrogatepass")
    size = len(body)
    return _TEXTS[size] + body if size < _SHORT else b"s%d:%b" % (size, body)


def _encode_bytes(value: bytes | bytearray | memoryview) -> bytes:
    body = bytes(value)
    return b"y%d:%b" % (len(body), body)


def _encode_sequence(value: list[Any] | tuple[Any, ...]) -> bytes:
    return as_list(b"".join([_EXACT.get(type(item), _encode_kin)(item) for item in value]))


# The same few names come again in every value of a kind.
_encode_key = lru_cache(4096)(_encode_str)


def _encode_mapping(value: Mapping[str, Any]) -> bytes:
    if set(map(type, value)) - {str}:
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"no canonical encoding for a mapping with a {type(key).__name__} key")
    items = [(key, value[key]) for key in sorted(value)]
    body = b"".join([_encode_key(key) + _EXACT.get(type(item), _encode_kin)(item) for key, item in items])
    return b"m%d:%b" % (len(body), body)


_EXACT: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"n0:",
    bool: lambda value: b"b1:1" if value else b"b1:0",
    int: _encode_int,
    float: lambda value: b"f8:" + struct.pack(">d", value),
    str: _encode_str,
    bytes: _encode_bytes,
    list: _encode_sequence,
    tuple: _encode_sequence,
    dict: _encode_mapping,
    Encoded: lambda value: value,
}
_KIN: tuple[tuple[Any, Callable[[Any], bytes]], ...] = (
    (int, _encode_int),
    (float, _EXACT[float]),
    (str, _encode_str),
    ((bytes, bytearray, memoryview), _encode_bytes),
    (Mapping, _encode_mapping),
    ((list, tuple), _encode_sequence),
)


def _encode_kin(value: Any) -> bytes:
    """A value of a class derived from those of the domain, or another kind of mapping or buffer."""
    for kinds, encode_one in _KIN:
        if isinstance(value, kinds):
            return encode_one(value)
    raise TypeError(f"no canonical encoding for {type(value).__name__}")


NUMBERS: dict[int, bytes] = {}
"""Encodings of small whole numbers, which most numbers are. Only for what is an ``int``: ``True`` is found here too."""
NUMBERS.update({number: _encode_int(number) for number in range(-64, 1025)})


def digest(kind: str, value: Any) -> str:
    """``sha256:`` digest of ``value`` in the domain ``kind`` (``key``, ``recipe``, ``graph`` …).

    The kind and the schema version are part of what is hashed, so that digests of different kinds of thing,
    or of different schemas, never meet.
    """
    return digest_encoded(kind, encode(value))


def digest_encoded(kind: str, encoded: bytes) -> str:
    """``digest`` of a value that is encoded already."""
    return "sha256:" + hashlib.sha256(as_list(_beginning(kind) + encoded)).hexdigest()


@lru_cache(64)
def _beginning(kind: str) -> bytes:
    return b"".join([encode("farm"), encode(SCHEMA), encode(kind)])


def to_json(value: Any) -> bytes:
    """Canonical JSON: keys sorted, no blanks, ASCII, floats as their shortest decimals (and ``Infinity``, ``NaN``).
    One value, one byte string; but tuples are lists here, and keys are text. ``TypeError`` for what JSON has no word
    for."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no canonical JSON for {type(value).__name__}")
