"""A node for people: its arguments in short, and the line of the model that it came from."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from farm.programs import schema

_FRAME = re.compile(r'File "([^"\n]{1,400})", line (\d{1,9})')
_LIBRARY = re.compile(r"(^|/)(site-packages|dist-packages)/|(^|/)torch/(nn|fx|_|export|utils)")
_MOST = 120


def describe_node(node: schema.Node) -> tuple[str, str]:
    """(arguments, ``file:line``) of a serialised node."""
    shown = ", ".join(f"{one.name}={_shown(one.arg)}" if one.name else _shown(one.arg) for one in node.inputs)
    return shorten(shown), source_line(_trace(node))


def shorten(text: str) -> str:
    """``text``, cut to one line's length."""
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def _shown(argument: schema.Argument) -> str:
    tag, value = next(iter(argument.items()), ("", None))
    if tag == "as_none":
        return "None"
    if tag == "as_graph":
        return "<graph>"
    if isinstance(value, list):
        return "[" + ", ".join(_item(item) for item in value[:16]) + (", …]" if len(value) > 16 else "]")
    return _item(value)


def _item(value: Any) -> str:
    if isinstance(value, dict):
        inner = next(iter(value.values()), "")
        return _item(inner) if isinstance(inner, dict) else str(inner)
    return str(value)


def _trace(node: schema.Node) -> str:
    try:
        found = msgspec.json.decode(node.metadata, type=dict[str, Any]).get("stack_trace", "")
    except (*schema.NOT_JSON, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def source_line(trace: str) -> str:
    """The innermost frame of ``trace`` that is not a library's, else the innermost; ``file:line``."""
    frames = _FRAME.findall(trace)
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    chosen = (own or frames)[-1:]
    return f"{chosen[0][0]}:{chosen[0][1]}" if chosen else ""
