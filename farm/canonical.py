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
import struct
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
"""Version of the encoding and of all that is digested over it. A change is a decision: the vectors in
``tests/vectors`` change with it."""


def encode(value: Any) -> bytes:
    """Encode ``value``; ``TypeError`` for anything outside the domain."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: Any, parts: list[bytes]) -> None:
    if value is None:
        parts.append(b"n0:")
    elif value is True:
        parts.append(b"b1:1")
    elif value is False:
        parts.append(b"b1:0")
    elif isinstance(value, int):
        body = b"%d" % value
        parts.append(b"i%d:%b" % (len(body), body))
    elif isinstance(value, float):
        parts.append(b"f8:" + struct.pack(">d", value))
    elif isinstance(value, str):
        body = value.encode("utf-8", "surrogatepass")
        parts.append(b"s%d:%b" % (len(body), body))
    elif isinstance(value, bytes | bytearray | memoryview):
        parts.append(b"y%d:%b" % (len(value), bytes(value)))
    elif isinstance(value, Mapping):
        _encode_mapping(value, parts)
    elif isinstance(value, list | tuple):
        inner: list[bytes] = []
        for item in value:
            _encode(item, inner)
        body = b"".join(inner)
        parts.append(b"l%d:%b" % (len(body), body))
    else:
        raise TypeError(f"no canonical encoding for {type(value).__name__}")


def _encode_mapping(value: Mapping[str, Any], parts: list[bytes]) -> None:
    inner: list[bytes] = []
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"no canonical encoding for a mapping with a {type(key).__name__} key")
    for key in sorted(value):
        _encode(key, inner)
        _encode(value[key], inner)
    body = b"".join(inner)
    parts.append(b"m%d:%b" % (len(body), body))


def digest(kind: str, value: Any) -> str:
    """``sha256:`` digest of ``value`` in the domain ``kind`` (``key``, ``recipe``, ``graph`` …).

    The kind and the schema version are part of what is hashed, so that digests of different kinds of thing,
    or of different schemas, never meet.
    """
    return "sha256:" + hashlib.sha256(encode(["farm", SCHEMA, kind, value])).hexdigest()
