"""The tables of weights and constants of a sanitised archive: raw bytes only, and none out of bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from farm.programs.archive import Member
from farm.programs.prepared import prepare
from farm.programs.sanitise_checks import Refused, boolean, decode, natural, nullable, qualified, record, shown, text
from farm.programs.sanitise_graph import TENSOR_META
from farm.programs.schema import DTYPES
from farm.programs.strided import extent
from farm.programs.weights import ITEM_SIZES

_ROOM = 1 << 30
_SPREAD = 16
_ENTRY = record(
    {"path_name": text, "is_param": boolean, "use_pickle": boolean, "tensor_meta": nullable(TENSOR_META)},
)


class _Table(Struct):
    config: dict[str, Raw]


prepare(_Table)


class Tensors:
    """One table and the folder of its members.

    ``prefix`` is what torch calls raw members there; it unpickles others (``custom_obj_…``, ``opaque_obj_…``).
    """

    def __init__(self, folder: str, prefix: str, members: Mapping[str, Member]) -> None:
        self.folder = folder
        self.used: dict[str, Member] = {}
        self._name = re.compile(re.escape(prefix) + r"[0-9]{1,9}", re.ASCII)
        self._members = members
        self._dtypes: dict[str, int] = {}

    def sanitise(self, content: bytes) -> bytes:
        """The table that torch may read; ``used`` then has the members that it needs, by their full names."""
        made = {}
        for name, raw in msgspec.json.decode(content, type=_Table).config.items():
            try:
                made[qualified(name)] = self._entry(_ENTRY(decode(raw)))
            except Refused as refused:
                raise refused.at(f"config[{shown(name)}]") from None
        return msgspec.json.encode({"config": made})

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise Refused("it is stored as a pickle (a tensor subclass or an object), which can run any code")
        if not self._name.fullmatch(entry["path_name"]):
            raise Refused(f"its data is in {shown(entry['path_name'])}, which torch would unpickle")
        member = self._members.get(self.folder + entry["path_name"])
        if member is None:
            raise Refused(f"the archive has no member {shown(entry['path_name'])}")
        _fits(meta, member)
        if self._dtypes.setdefault(member.name, meta["dtype"]) != meta["dtype"]:
            raise Refused("it shares its data with a tensor of another type, which torch does not load rightly")
        self.used[self.folder + entry["path_name"]] = member
        return entry


def _fits(meta: Mapping[str, Any], member: Member) -> None:
    """Refuse a tensor that reaches beyond its data, that has none, or that unfolds into far more than it has."""
    shape, strides = (tuple(_concrete(size) for size in meta[name]) for name in ("sizes", "strides"))
    offset = _concrete(meta["storage_offset"])
    if len(shape) != len(strides):
        raise Refused(f"it has {len(shape)} sizes and {len(strides)} strides")
    item = ITEM_SIZES[DTYPES[meta["dtype"]]]
    if 0 in shape:
        return
    if member.size == 0:
        raise Refused("it was saved without its values (a program of fake tensors); torch would take zeros for them")
    if member.size % item or (offset + extent(shape, strides)) * item > member.size:
        raise Refused(f"it reaches beyond its {member.size:,} bytes of data")
    if _elements(shape) * item > max(_ROOM, _SPREAD * member.size):
        raise Refused(f"{member.size:,} bytes of data are spread over {_elements(shape):,} elements")


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _concrete(size: Mapping[str, Any]) -> int:
    if "as_int" not in size:
        raise Refused("its size is not a number")
    return natural(size["as_int"])
