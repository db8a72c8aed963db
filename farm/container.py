"""The container: one engine and what it is, in one file that nothing in it can make run. Pure.

Engine caches hand plans around with their names and settings; peers pickle them, so whoever can write to the
bucket runs code on every reader (reference/peers.md). This is a plain frame instead::

    8 bytes   magic
    u32       schema version                    (big-endian)
    u32       length of the header
    32 bytes  SHA-256 of the header
    header    canonical JSON: ASCII, sorted keys, no spaces
    plan      as many bytes as the header says, with the SHA-256 that the header says, and nothing after them

Reading verifies every one of these. ``BadInput``: this is no container, one of a newer farm, or one whose header
makes no sense; ``CorruptBlob``: it was a container and bytes are missing, wrong or too many.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO

from farm.errors import BadInput, CorruptBlob

MAGIC = b"\x89FARM\r\n\x1a"
"""No text file starts so, and a transfer that rewrites line ends or strips the eighth bit shows at once."""
SCHEMA = 1
"""Version of the frame and of the header's fields. The vectors in ``tests/vectors`` change with it."""
MAX_HEADER = 1 << 20
"""Bytes. A header holds names and settings; what is larger is no header."""

_FRAME = struct.Struct(">8sII32s")
_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SIDES = ("inputs", "outputs")


@dataclass(frozen=True)
class Header:
    """What the plan is. ``key``, ``recipe`` and ``engine`` are ``sha256:`` digests, ``engine`` that of the plan's
    bytes, and ``size`` their number. ``bindings`` are the plan's own inputs and outputs in order, each with name,
    dtype and shape (as ``builders.Product`` gives them); ``detail`` is any JSON object. ``BadInput`` otherwise."""

    key: str
    recipe: str
    engine: str
    size: int
    toolchain: str
    target: str
    bindings: Mapping[str, Any]
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("key", "recipe", "engine"):
            _check(_is_digest(getattr(self, name)), f"its {name} is no sha256: digest")
        _check(type(self.size) is int and 0 <= self.size < 1 << 63, "its size is no number of bytes")
        for name in ("toolchain", "target"):
            _check(isinstance(getattr(self, name), str), f"its {name} is no text")
        _check(_are_bindings(self.bindings), "its bindings are not inputs and outputs, each with name, dtype and shape")
        _check(isinstance(self.detail, Mapping), "its detail is no JSON object")
        # As they will be read back, so that a header equals what a reader makes of it.
        object.__setattr__(self, "bindings", _plain(self.bindings))
        object.__setattr__(self, "detail", _plain(self.detail))


def header_for(
    plan: bytes | memoryview,
    *,
    key: str,
    recipe: str,
    toolchain: str,
    target: str,
    bindings: Mapping[str, Any],
    detail: Mapping[str, Any] | None = None,
) -> Header:
    """The header of ``plan``: its digest and size are taken here."""
    return Header(key, recipe, _digest(plan), len(plan), toolchain, target, bindings, detail or {})


def pack(header: Header, plan: bytes | memoryview) -> bytes:
    """The container of ``plan``. ``BadInput`` when the header is not this plan's."""
    _check(header.size == len(plan) and header.engine == _digest(plan), "its size or digest is another plan's")
    return b"".join((_start(header), plan))


def pack_to(dest: BinaryIO, header: Header, plan: BinaryIO) -> None:
    """Write the container of all that ``plan`` holds, a piece at a time.

    ``CorruptBlob`` when that is not what the header says; ``dest`` then holds rubbish, which the caller removes.
    """
    dest.write(_start(header))
    for piece in _verified(plan, header):
        dest.write(piece)
    if plan.read(1):
        raise CorruptBlob(f"the plan has more than the {header.size:,} bytes that its header says", "build it again")


def unpack(source: bytes | bytearray | memoryview | BinaryIO) -> tuple[Header, memoryview]:
    """Header and plan of a whole container. The plan of one in memory is a view of it: nothing is copied."""
    if isinstance(source, bytes | bytearray | memoryview):
        return _unpack_view(memoryview(source).cast("B"))
    plan = io.BytesIO()
    header = unpack_to(source, plan)
    return header, plan.getbuffer()


def unpack_to(source: BinaryIO, dest: BinaryIO) -> Header:
    """Write the plan to ``dest``, a piece at a time. The plan may be used once this has returned, not before:
    only its last byte shows whether it was whole."""
    header = read_header(source)
    for piece in _verified(source, header):
        dest.write(piece)
    if source.read(1):
        raise _too_long()
    return header


def read_header(source: BinaryIO) -> Header:
    """The header alone; ``source`` then stands at the plan, of which nothing has been read or verified."""
    length, digest = _frame(_read(source, _FRAME.size, "its first bytes"))
    return _header(_read(source, length, "its header"), digest)


# -- writing ---------------------------------------------------------------------------------------------------


def _start(header: Header) -> bytes:
    body = _canonical(header)
    _check(len(body) <= MAX_HEADER, f"it is longer than {MAX_HEADER:,} bytes")
    return _FRAME.pack(MAGIC, SCHEMA, len(body), hashlib.sha256(body).digest()) + body


def _canonical(header: Header) -> bytes:
    """The one JSON text of ``header``."""
    values = {one.name: getattr(header, one.name) for one in fields(header)}
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")


def _plain(value: Mapping[str, Any]) -> Any:
    """``value`` as JSON holds it; ``BadInput`` for what JSON cannot hold, or would give back as something else."""
    try:
        plain = _lists_and_dicts(value)
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad(f"it cannot be written as JSON ({error})") from None
    return plain


def _lists_and_dicts(value: Any) -> Any:
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("a name in it is no text")
        return {name: _lists_and_dicts(item) for name, item in value.items()}
    return [_lists_and_dicts(item) for item in value] if isinstance(value, list | tuple) else value


# -- reading ---------------------------------------------------------------------------------------------------


def _unpack_view(view: memoryview) -> tuple[Header, memoryview]:
    length, digest = _frame(bytes(view[: _FRAME.size]))
    header = _header(_exactly(bytes(view[_FRAME.size : _FRAME.size + length]), length, "its header"), digest)
    plan = view[_FRAME.size + length :]
    if len(plan) < header.size:
        raise _truncated("its plan", header.size, len(plan))
    if len(plan) > header.size:
        raise _too_long()
    if _digest(plan) != header.engine:
        raise _other_plan(header)
    return header, plan


def _frame(start: bytes) -> tuple[int, bytes]:
    """The header's length and digest."""
    if not start.startswith(MAGIC[: len(start)]) or not start:
        raise BadInput("this is no engine container", "farm's containers start with its magic; was it converted?")
    _exactly(start, _FRAME.size, "its first bytes")
    _, schema, length, digest = _FRAME.unpack(start)
    if schema > SCHEMA:
        raise BadInput(
            f"the engine container has schema {schema}, and this farm reads up to {SCHEMA}",
            "a newer farm wrote it: update farm here, or build the engine again",
        )
    if schema < 1 or length > MAX_HEADER:
        raise CorruptBlob("the engine container's first bytes are damaged", "fetch or build it again")
    return length, digest


def _header(body: bytes, digest: bytes) -> Header:
    if hashlib.sha256(body).digest() != digest:
        raise CorruptBlob("the engine container's header is damaged", "fetch or build it again")
    try:
        found = json.loads(body.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is no JSON ({error})") from None
    _check(isinstance(found, dict) and set(found) == {one.name for one in fields(Header)}, "its fields are others")
    header = Header(**found)
    _check(_canonical(header) == body, "it is not written canonically")
    return header


def _verified(plan: BinaryIO, header: Header) -> Iterator[bytes]:
    """The plan's pieces; ``CorruptBlob`` at the end when they are not what the header says."""
    hasher, left = hashlib.sha256(), header.size
    while left:
        piece = plan.read(min(_CHUNK, left))
        if not piece:
            raise _truncated("its plan", header.size, header.size - left)
        hasher.update(piece)
        left -= len(piece)
        yield piece
    if "sha256:" + hasher.hexdigest() != header.engine:
        raise _other_plan(header)


def _read(source: BinaryIO, size: int, what: str) -> bytes:
    """Exactly ``size`` bytes, or the first bytes' own complaint: a pipe may give them in pieces."""
    found = bytearray()
    while len(found) < size:
        piece = source.read(min(_CHUNK, size - len(found)))
        if not piece:
            break
        found += piece
    return bytes(found) if size == _FRAME.size else _exactly(bytes(found), size, what)


def _exactly(data: bytes, size: int, what: str) -> bytes:
    if len(data) < size:
        raise _truncated(what, size, len(data))
    return data


# -- words -----------------------------------------------------------------------------------------------------


def _truncated(what: str, wanted: int, found: int) -> CorruptBlob:
    return CorruptBlob(
        f"the engine container is cut short: {what} should have {wanted:,} bytes and has {found:,}",
        "it was not copied whole: fetch or build it again",
    )


def _too_long() -> CorruptBlob:
    return CorruptBlob("the engine container goes on after the end of its plan", "fetch or build it again")


def _other_plan(header: Header) -> CorruptBlob:
    return CorruptBlob(f"the engine container's plan is not {header.engine}", "fetch or build it again")


def _bad(why: str) -> BadInput:
    return BadInput(f"an engine container cannot have such a header: {why}", "build the engine again with this farm")


def _check(fine: bool, why: str) -> None:
    if not fine:
        raise _bad(why)


def _digest(plan: bytes | memoryview) -> str:
    return "sha256:" + hashlib.sha256(plan).hexdigest()


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _are_bindings(value: object) -> bool:
    if not isinstance(value, Mapping) or set(value) != set(_SIDES):
        return False
    return all(isinstance(value[side], list | tuple) and all(map(_is_binding, value[side])) for side in _SIDES)


def _is_binding(value: object) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"name", "dtype", "shape"}:
        return False
    shape = value["shape"]
    text = isinstance(value["name"], str) and isinstance(value["dtype"], str)
    return text and isinstance(shape, list | tuple) and all(type(size) is int for size in shape)
