"""The kinds of value that a setting takes: how each is checked, written and read from text. Pure.

A kind turns what it is given (plain values, and torch's or Torch-TensorRT's own objects recognised by what
they look like, never by importing torch) into one canonical value, so that two spellings of one thing are
equal. Types are strict: ``True`` is no integer and ``1`` no truth value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

Value: TypeAlias = bool | int | float | str | frozenset[str] | None

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_NONE = frozenset({"none", "null"})
_SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([kmgt])?(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_OPERATOR = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_DIGEST = re.compile(r"(sha256|b3):[0-9a-f]{64}")
_DEVICE = re.compile(r"(cuda|gpu|dla)(?::(\d+))?")
# A comma that closes no "{m,n}": patterns may count repetitions.
_PATTERN_COMMA = re.compile(r",(?![^{]*\})")

_DTYPES = {
    "float32": ("f32", "fp32", "float"),
    "float16": ("f16", "fp16", "half"),
    "bfloat16": ("bf16",),
    "int8": ("i8",),
    "float8_e4m3fn": ("f8", "fp8", "float8"),
    "float4_e2m1fn_x2": ("f4", "fp4", "float4"),
}
_DTYPE_NAMES = {alias: name for name, aliases in _DTYPES.items() for alias in (name, *aliases)}


class Wrong(ValueError):
    """A value that a kind does not take. Its text, which may be empty, goes behind what is allowed."""


class Kind(Protocol):
    """One kind of value."""

    @property
    def type(self) -> str:
        """The type as Torch-TensorRT's documentation would name it."""

    @property
    def words(self) -> str:
        """What is allowed, for an error message."""

    def check(self, value: object) -> Value:
        """The canonical value; ``Wrong`` if this kind does not take it."""

    def read(self, text: str) -> object:
        """A value for ``check`` from the command line's text; ``Wrong`` if it cannot be one."""


class Bool:
    type: str = "bool"
    words: str = "true or false"

    def check(self, value: object) -> Value:
        if isinstance(value, bool):
            return value
        raise Wrong

    def read(self, text: str) -> object:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise Wrong


@dataclass(frozen=True, eq=False, repr=False)
class Int:
    """An integer in ``low … high``, both included."""

    low: int
    high: int = MAX_INT32
    type: str = "int"

    @property
    def words(self) -> str:
        if self.high in (MAX_INT32, MAX_INT64):
            return f"an integer of at least {self.low}"
        return f"an integer from {self.low} to {self.high}"

    def check(self, value: object) -> Value:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong
        if not self.low <= value <= self.high:
            raise Wrong
        return int(value)

    def read(self, text: str) -> object:
        if re.fullmatch(r"[+-]?\d{1,40}", text) is None:
            raise Wrong
        return int(text)


@dataclass(frozen=True, eq=False, repr=False)
class Bytes:
    """A number of bytes, which text may write with a binary suffix (trtexec's: ``2G`` is 2 × 2³⁰)."""

    low: int = 0
    type: str = "int (bytes)"

    @property
    def words(self) -> str:
        return f"a number of bytes of at least {self.low}, as 1048576, 512M or 2G"

    def check(self, value: object) -> Value:
        return Int(self.low, MAX_INT64).check(value)

    def read(self, text: str) -> object:
        match = _SIZE.fullmatch(text)
        if match is None or len(text) > 40:
            return Int(self.low, MAX_INT64).read(text)
        whole, fraction, suffix = match.groups(default="")
        scaled = int(whole + fraction) << _POWERS[suffix.lower()]
        if scaled % 10 ** len(fraction):
            raise Wrong("that is no whole number of bytes")
        return scaled // 10 ** len(fraction)


class Float:
    """A finite number that is not negative."""

    type: str = "float"
    words: str = "a finite number of at least 0"

    def check(self, value: object) -> Value:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Wrong
        if isinstance(value, int) and value.bit_length() > 1000:
            raise Wrong
        if not math.isfinite(value) or value < 0:
            raise Wrong
        return float(value) + 0.0  # -0.0 becomes 0.0

    def read(self, text: str) -> object:
        try:
            return float(text)
        except ValueError:
            raise Wrong from None


@dataclass(frozen=True, eq=False, repr=False)
class Choice:
    """One of a few names; an enum's member counts by its name, and case does not matter."""

    options: tuple[str, ...]
    type: str = "str"

    @property
    def words(self) -> str:
        return "one of " + ", ".join(self.options)

    def check(self, value: object) -> Value:
        if not isinstance(value, str) and not hasattr(value, "name"):
            raise Wrong
        name = spelling(value).removeprefix("EngineCapability.").lower()
        for option in self.options:
            if option.lower() == name:
                return option
        raise Wrong

    def read(self, text: str) -> object:
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Dtype:
    """One of some data types, under torch's names."""

    options: tuple[str, ...]
    type: str = "dtype"

    @property
    def words(self) -> str:
        return "one of " + ", ".join(self.options)

    def check(self, value: object) -> Value:
        name = spelling(value).lower().removeprefix("torch.").removeprefix("dtype.")
        found = _DTYPE_NAMES.get(name)
        if found not in self.options:
            raise Wrong
        return found

    def read(self, text: str) -> object:
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Optional:
    """Another kind, or ``None``."""

    inner: Kind

    @property
    def type(self) -> str:
        return f"{self.inner.type} or none"

    @property
    def words(self) -> str:
        return f"{self.inner.words}, or none"

    def check(self, value: object) -> Value:
        return None if value is None else self.inner.check(value)

    def read(self, text: str) -> object:
        return None if text.lower() in _NONE else self.inner.read(text)


@dataclass(frozen=True, eq=False, repr=False)
class SetOf:
    """An unordered collection of names, each checked by ``element``; ``empty`` stands for the empty set."""

    element: Callable[[object], str]
    type: str
    what: str
    split: re.Pattern[str] = re.compile(",")
    empty: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        return f"a set of {self.what}"

    def check(self, value: object) -> Value:
        if not isinstance(value, list | tuple | Set):
            raise Wrong("put it in a list" if isinstance(value, str) else "")
        return frozenset(self.element(item) for item in value) or self.empty

    def read(self, text: str) -> object:
        if text.lower() in _NONE | {"", "{}", "[]", "set()"}:
            return ()
        listed = _json_list(text)
        return [part.strip() for part in self.split.split(text)] if listed is None else listed


def _json_list(text: str) -> list[object] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else None


class Text:
    """Any text that is not empty: a path."""

    type: str = "str"
    words: str = "a path"

    def check(self, value: object) -> Value:
        if isinstance(value, str) and value and "\0" not in value:
            return value
        raise Wrong

    def read(self, text: str) -> object:
        return text


class BoolOrPath:
    type: str = "bool or str"
    words: str = "true, false or a path"

    def check(self, value: object) -> Value:
        return value if isinstance(value, bool) else Text().check(value)

    def read(self, text: str) -> object:
        return text.lower() == "true" if text.lower() in ("true", "false") else text


class DeclaredDigest:
    """Data too big to be a value: its digest, or an object that declares one as ``farm_digest``."""

    type: str = "DataLoader"
    words: str = "a digest as sha256:… or b3:… (64 hex digits), or an object whose attribute farm_digest is one"

    def check(self, value: object) -> Value:
        digest = value if isinstance(value, str) else getattr(value, "farm_digest", None)
        if isinstance(digest, str) and _DIGEST.fullmatch(digest):
            return digest
        if isinstance(value, str):
            raise Wrong
        raise Wrong("its content cannot be hashed, so it must declare a digest")

    def read(self, text: str) -> object:
        return text


class Device:
    """A device as torch or Torch-TensorRT writes it; plain ``cuda`` is the current one, ``None``."""

    type: str = "Device"
    words: str = "cuda:N, gpu:N or dla:N (a DLA core), or none for the current device"

    def check(self, value: object) -> Value:
        if value is None:
            return None
        text = _device_text(value) if hasattr(value, "gpu_id") else str(value)
        match = _DEVICE.fullmatch(text.lower())
        if match is None or (match[1] == "dla" and match[2] is None):
            raise Wrong
        if match[2] is None:
            return None
        return f"{'dla' if match[1] == 'dla' else 'cuda'}:{int(match[2])}"

    def read(self, text: str) -> object:
        return None if text.lower() in _NONE else text


def _device_text(device: object) -> str:
    """``torch_tensorrt.Device``: a DLA core if it names one, else a GPU."""
    core = getattr(device, "dla_core", -1)
    on_dla = spelling(getattr(device, "device_type", "")).rpartition(".")[2].upper() == "DLA"
    return f"dla:{core}" if on_dla else f"cuda:{getattr(device, 'gpu_id', 0)}"


def spelling(value: object) -> str:
    """How a foreign object writes itself: an enum by its member's name, anything else by ``str``."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Enum):
        return value.name
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else str(value)


def operator_name(value: object) -> str:
    """The qualified name of an operator: ``aten.add.Tensor``; ``Wrong`` if it is none.

    Takes an overload or a packet of ``torch.ops``, its text in any of the usual spellings, or a plain
    function (``operator.getitem`` → ``_operator.getitem``, as torch qualifies it).
    """
    text = value if isinstance(value, str) else _operator_text(value)
    text = text.strip().removeprefix("torch.ops.").replace("::", ".")
    if _OPERATOR.fullmatch(text) is None:
        raise Wrong(f"{short(value)} names no operator")
    return text


def _operator_text(value: object) -> str:
    text = str(value)
    if _OPERATOR.fullmatch(text.removeprefix("torch.ops.")):
        return text
    namespace, named = getattr(value, "namespace", None), getattr(value, "_name", None)
    if isinstance(namespace, str) and isinstance(named, str):
        return f"{namespace}.{named.rpartition('::')[2]}"
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    return text


def pattern(value: object) -> str:
    """A regular expression over node names, as given; ``Wrong`` if it does not compile."""
    if not isinstance(value, str):
        raise Wrong(f"{short(value)} is no text")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise Wrong(f"{short(value)} is no regular expression ({error})") from None
    return value


def precision(value: object) -> str:
    """One data type's name; ``Wrong`` if TensorRT has no kernels for it."""
    try:
        return str(Dtype(tuple(_DTYPES)).check(value))
    except Wrong:
        raise Wrong(f"{short(value)} is none of them") from None


def rule_name(value: object) -> str:
    """The identifier of one of Torch-TensorRT's rules: any text that is not empty."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise Wrong(f"{short(value)} is no rule's name")


def short(value: object) -> str:
    """``value`` for an error message: one line of at most 80 characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer with more digits than Python prints
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= 80 else text[:77] + "..."


PATTERNS = SetOf(pattern, "set of str (regex)", "regular expressions over node names", _PATTERN_COMMA)
OPERATORS = SetOf(operator_name, "set of operators", "operators by qualified name (aten.add.Tensor)")
RULES = SetOf(rule_name, "set of str", "rule names")
PRECISIONS = SetOf(precision, "set of dtype", f"data types ({', '.join(_DTYPES)})", empty=frozenset({"float32"}))
