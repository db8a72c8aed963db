"""What TensorRT's error messages mean. Pure.

A log is classified by its **first** error: every error of the API is followed by a spurious ``cudaError 35`` on
a machine without a driver (reference, "Building without a GPU"). Where it is the parser that gives up, its own
record of the first error counts, as it names the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.builds import Failure, FailureKind

PERMANENT, NODE = FailureKind.PERMANENT, FailureKind.NODE
LONGEST = 300

NO_MEMORY = re.compile(r"std::bad_alloc|[Cc]an(not|'t) allocate memory|bad allocation|MemoryError")

_SPURIOUS = re.compile(r"cudaError 35\b|Thread context has not been set")
_CORRUPT = re.compile(r"Failed to parse the ONNX model|MODEL_DESERIALIZE_FAILED")
_NO_FILE = re.compile(r"Input file cannot be found|Failed to open|WeightsContext|external", re.IGNORECASE)
_NO_OPERATOR = re.compile(r"Plugin not found|plugin creator .*not found|No importer registered", re.IGNORECASE)
_INVALID_NODE = re.compile(r"^Invalid Node - \S*\s*")
_ASSERTION = re.compile(r"^Assertion failed: (.*?: (?=[A-Z]))?")
_INNER = re.compile(r"Error Code \d+: [^(]*\((?P<inner>.+)\)\s*$", re.DOTALL)
_CODE = re.compile(r"^.*?Error Code \d+: ", re.DOTALL)
_WHERE = re.compile(r"\s*\(?In \w+ at /\S+?:\d+\)?\s*$")
_SOURCE = re.compile(r"\[\w+\.\w+:\d+: \w+\] ?|MyelinCheckException: ")
_WORD = re.compile(r"[A-Za-z_][\w./:+-]*")


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    kind: FailureKind
    hint: str


def _rule(pattern: str, kind: FailureKind, hint: str) -> _Rule:
    return _Rule(re.compile(pattern), kind, hint)


_RULES = (
    _rule(
        r"within workspace limit|maxScratchSize > 0|OutOfMemory \(Requested size was",
        PERMANENT,
        "give a larger workspace_size, or leave it at 0",
    ),
    _rule(
        r"for \w+ \(SM\d+\)",
        PERMANENT,
        "leave that GPU generation out of the target, or export the model in a precision that it has (float16)",
    ),
    _rule(
        r"CHECK\(status == CUDA_SUCCESS\)|CUDA initialization failure|no CUDA-capable device",
        NODE,
        "this needs an NVIDIA driver, as refittable and stripped engines do: build on a machine with a GPU",
    ),
    _rule(
        r"(?i)timing cache.*(miss|not (present|found))|not (present|found) in the timing cache",
        NODE,
        "FARM_TIMING=strict takes every timing from the cache: build this once with FARM_TIMING=editable",
    ),
    _Rule(NO_MEMORY, NODE, "give the build more memory, or a machine that has more"),
    _rule(
        r"OutOfMemory|out of memory", NODE, "build on a machine with more GPU memory, or with a smaller workspace_size"
    ),
    _rule(r"Unable to load library", NODE, "this installation lacks that library: build on another machine"),
    _rule(
        r"Could not find any implementation",
        PERMANENT,
        "try engine_capability=STANDARD, other profiles, or another precision",
    ),
)
_OTHERWISE = _rule("", PERMANENT, "change the model or the settings; 'farm logs' shows TensorRT's whole log")


def classify_errors(errors: Iterable[str], nodes: Mapping[str, str]) -> Failure | None:
    """The failure that a build's errors, in the order they came, tell of; ``None`` if none of them tells.

    ``nodes`` maps the graph's nodes to where they come from (``notes.Notes.nodes``).
    """
    first = next(iter(telling(errors)), None)
    if first is None:
        return None
    rule = next((rule for rule in _RULES if rule.pattern.search(first)), _OTHERWISE)
    return Failure(rule.kind, f"TensorRT: {tidy(first)}{origin(first, nodes)}", rule.hint)


def telling(errors: Iterable[str]) -> list[str]:
    """The errors that tell something: those that follow every other one on a machine without a driver do not."""
    return [text for text in errors if not _SPURIOUS.search(text)]


def classify_parse(told: Sequence[Any], errors: Sequence[str], nodes: Mapping[str, str]) -> Failure:
    """The failure of a parse: ``told`` are the parser's own records (text, node_name, node_operator)."""
    first: Mapping[str, Any] = told[0] if told and isinstance(told[0], dict) else {}
    text = str(first.get("text") or next(iter(errors), "it gave no reason"))
    if NO_MEMORY.search(text):
        return Failure(NODE, "TensorRT ran out of memory while it read the model", "give the build more memory")
    if _CORRUPT.search(text):
        return Failure(PERMANENT, "the file is no ONNX model, or a damaged one", "export the model again")
    node, operator = str(first.get("node_name", "")), str(first.get("node_operator", ""))
    where = nodes.get(node) or (f"node {node}" if node else "")
    subject = f"{operator} [{where}]" if operator and where else operator or where
    if _NO_OPERATOR.search(text):
        return Failure(
            PERMANENT,
            f"TensorRT has no operator {subject or 'of that kind'}",
            "replace it in the model, or build with torch_tensorrt, which leaves it to PyTorch",
        )
    return Failure(
        PERMANENT,
        f"TensorRT cannot read {subject or 'the model'}: {tidy(_INVALID_NODE.sub('', text))}",
        "change that part of the model; 'farm logs' shows TensorRT's whole log",
    )


def tidy(text: str) -> str:
    """TensorRT's message on one line, without its source positions and error codes."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    inner = _INNER.search(line)
    line = inner["inner"] if inner else _CODE.sub("", line)
    line = _ASSERTION.sub("", _SOURCE.sub("", _WHERE.sub("", line))).strip().rstrip(".").strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def origin(text: str, nodes: Mapping[str, str]) -> str:
    """Where the first node that ``text`` names comes from, in brackets; empty if it names none that is known."""
    for word in _words(text):
        if word in nodes:
            return f" [{nodes[word]}]"
    return ""


def _words(text: str) -> Iterator[str]:
    """The words that may be a node's name. A fused node lists its first and last as ``{ForeignNode[a...b]}``, and
    TensorRT numbers the layers that it makes of one node: ``node_linear_0``."""
    for piece in text.split("..."):
        for word in _WORD.findall(piece):
            yield word
            yield re.sub(r"_\d+$", "", word)


def gib(size: int) -> str:
    """A number of bytes for people: ``1.5 GiB``, ``200 MiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
