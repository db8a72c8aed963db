"""The descriptions of a program's arguments and results (pytree specs) in a sanitised archive.

They name container types. Torch's loader imports the module of an enumeration among a dictionary's keys and
of a ``defaultdict``'s factory, and writes keywords into Python code. So types are taken from a table, keys
are plain text or numbers, and a type that is not in torch's own registry keeps its name (the export child
puts a placeholder in its place, and imports nothing) with a context in which nothing is looked up. A named
tuple becomes a tuple, as torch would not load one whose class this process does not have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from farm.programs.sanitise_checks import (
    Check,
    Refused,
    fields_of,
    identifier,
    integer,
    listing,
    nullable,
    plain_text,
    shown,
    text,
)

_MAX_DEPTH = 100
_TYPE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_OURS = ("torch.", "builtins.", "collections.", "farm.")
_FACTORIES = frozenset({"list", "dict", "int", "float", "bool", "str", "set", "tuple"})


def input_tree(value: Any) -> str:
    """The spec of ``(arguments, keyword arguments)``. Keywords are identifiers."""
    tree = _tree(value)
    children = tree["children_spec"]
    if tree["type"] == "builtins.tuple" and len(children) == 2 and children[1]["type"] == "builtins.dict":
        listing(identifier)(json.loads(children[1]["context"]))
    return _written(tree)


def output_tree(value: Any) -> str:
    """The spec of the results."""
    return _written(_tree(value))


def _written(tree: dict[str, Any]) -> str:
    return json.dumps([1, tree])


def _tree(value: Any) -> dict[str, Any]:
    found = _parsed(text(value))
    if not isinstance(found, list) or len(found) != 2 or type(found[0]) is not int or found[0] != 1:
        raise Refused("it is not a tree of protocol 1")
    return _spec(found[1], 0)


def _parsed(content: str) -> Any:
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(f"{shown(content)} is not JSON") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _spec(value: Any, depth: int) -> dict[str, Any]:
    given = fields_of(value)
    kind, context, children = (given.get(name) for name in ("type", "context", "children_spec"))
    if depth > _MAX_DEPTH or not isinstance(children, list):
        raise Refused("containers are nested too deeply" if depth > _MAX_DEPTH else "a container has no children")
    if kind is None:
        if context is not None or children:
            raise Refused("a leaf has content")
        return {"type": None, "context": None, "children_spec": []}
    if not isinstance(kind, str):
        raise Refused(f"{shown(kind)} is not the name of a type")
    made = [_spec(child, depth + 1) for child in children]
    if kind == "collections.namedtuple":
        kind, context = "builtins.tuple", "null"
    check = _CONTEXTS.get(kind) or _foreign(kind)
    return {"type": kind, "context": check(context), "children_spec": made}


def _nothing(value: Any) -> None:
    if value is not None:
        raise Refused(f"a list or tuple has {shown(value)} beside its items")


def _key(value: Any) -> Any:
    """A key of a dictionary: text that stays text between quotes, or a plain number."""
    if value is None or type(value) is bool or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return plain_text(value)
    if type(value) is int:
        return integer(value)
    raise Refused(f"the key {shown(value)} of a dictionary is neither text nor a number")


_keys = listing(_key)


def _in_json(check: Check) -> Callable[[Any], str]:
    """A context that is JSON inside text, checked and written anew."""
    return lambda value: json.dumps(check(_parsed(text(value))))


def _factory(value: Any) -> dict[str, Any]:
    given = fields_of(value)
    module, name = (text(given.get(f"default_factory_{part}")) for part in ("module", "name"))
    if module != "builtins" or name not in _FACTORIES:
        raise Refused(f"a defaultdict is made by {shown(f'{module}.{name}')}, which would have to be imported")
    keys = _keys(given.get("dict_context"))
    return {"default_factory_module": module, "default_factory_name": name, "dict_context": keys}


def _foreign(kind: str) -> Check:
    """The context of a type that torch does not know by itself."""
    if not _TYPE.fullmatch(kind) or kind.startswith(_OURS):
        raise Refused(f"the container type {shown(kind)} is not let through")
    return _inert


def _inert(value: Any) -> Any:
    """A context that nothing interprets; JSON inside its text is read too, as deep as it goes."""
    if isinstance(value, dict):
        if "__enum__" in value:
            raise Refused("an enumeration would have to be imported")
        return {text(name): _inert(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_inert(item) for item in value]
    if isinstance(value, str):
        return _inert_text(value)
    return _key(value)


def _inert_text(value: str) -> str:
    try:
        inner = json.loads(text(value), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return value
    _inert(inner)
    return value


_CONTEXTS: dict[str, Check] = {
    "builtins.tuple": _in_json(_nothing),
    "builtins.list": _in_json(_nothing),
    "torch.Size": _in_json(_nothing),
    "torch.fx.immutable_collections.immutable_list": _in_json(_nothing),
    "builtins.dict": _in_json(_keys),
    "collections.OrderedDict": _in_json(_keys),
    "torch.fx.immutable_collections.immutable_dict": _in_json(_keys),
    "collections.deque": _in_json(nullable(integer)),
    "collections.defaultdict": _factory,
}
