"""Outlines: enough of a program to say in words how two programs differ, kept beside the keys of every build.

A key says *that* graphs or weights differ. The outline, a few compressed kilobytes in the store, holds inputs,
weight tensors by digest and nodes by Merkle digest with their source lines, so that ``farm explain`` can say
*which* long after either program has gone.
"""

from __future__ import annotations

import io
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from farm.errors import CorruptBlob
from farm.explain import Reason
from farm.programs import Program
from farm.store import BlobStore, is_name

SCHEMA = 2
SHOWN = 3
MAX_BYTES = 256 << 20


def outline_of(program: Program) -> dict[str, Any]:
    """The outline of ``program``, as plain JSON. An output that is one result of several has no node's digest."""
    nodes = program.nodes()
    made_by = {node.name: node.digest for node in nodes}
    return {
        "schema": SCHEMA,
        "graph": program.structure_digest,
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in program.inputs],
        "symbols": {name: [symbol.minimum, symbol.maximum] for name, symbol in program.symbols.items()},
        "outputs": [[spec.name, spec.dtype, list(spec.shape), made_by.get(spec.name, "")] for spec in program.outputs],
        "weights": [[one.name, one.dtype, list(one.shape), one.digest, one.kind] for one in program.weights.tensors()],
        "nodes": [[node.digest, node.op, node.description, node.source] for node in nodes],
    }


def save_outline(outline: Mapping[str, Any], store: BlobStore) -> str:
    """Put an outline into the store; its digest."""
    return store.put(io.BytesIO(zlib.compress(json.dumps(outline, sort_keys=True).encode(), 6))).digest


def load_outline(digest: str | None, store: BlobStore) -> dict[str, Any] | None:
    """The outline of that digest; ``None`` when there is none, it cannot be read, or it is of another schema: an
    explanation is the shorter for it, and does not fail."""
    try:
        data = store.read(digest) if digest and is_name(digest) else None
    except CorruptBlob:  # 'farm verify' puts it aside; who explains need not be able to
        data = None
    if data is None:
        return None
    try:
        outline = json.loads(zlib.decompressobj().decompress(data, MAX_BYTES))
    except (zlib.error, ValueError, RecursionError):
        return None
    return outline if isinstance(outline, dict) and outline.get("schema") == SCHEMA else None


def program_reasons(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Reason]:
    """In which inputs, tensors and nodes two programs differ; the first few of each, and how many there are. Outputs
    follow from their nodes: they are spoken of where those say nothing."""
    found = [*_inputs(mine, theirs), *_weights(mine, theirs), *_nodes(mine, theirs)]
    if mine["graph"] == theirs["graph"] or any(reason.part == "graph" for reason in found):
        return found
    return [*found, *_outputs(mine, theirs)]


def _inputs(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Reason]:
    one, other = mine["inputs"], theirs["inputs"]
    if len(one) != len(other):
        return [Reason("graph", "inputs", f"{len(one)} inputs here and {len(other)} there", len(one), len(other))]
    found = []
    for n, (here, there) in enumerate(zip(one, other, strict=True)):
        if here[1:] != there[1:]:
            text = f"input {n} ({here[0]}) is {_tensor(here)} here and {_tensor(there)} there"
            found.append(Reason("graph", f"inputs[{n}]", text, here, there))
    for name in sorted({*mine["symbols"], *theirs["symbols"]}):
        here, there = mine["symbols"].get(name), theirs["symbols"].get(name)
        if here and there and here != there:
            text = f"dimension {name} ranges over {_range(here)} here and {_range(there)} there"
            found.append(Reason("graph", f"symbols.{name}", text, here, there))
    return found


def _weights(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Reason]:
    one, other = mine["weights"], theirs["weights"]
    if len(one) != len(other):
        text = f"{len(one)} tensors here and {len(other)} there"
        return [Reason("weights", "weights", text, len(one), len(other))]
    changed = [(here, there) for here, there in zip(one, other, strict=True) if here[1:] != there[1:]]
    found = [
        Reason(
            "weights", f"weights.{here[0]}", f"{here[4]} {here[0]} {_tensor(here)}: {_which(here, there)}", here, there
        )
        for here, there in changed[:SHOWN]
    ]
    return found + _more("weights", len(changed), "tensors")


def _which(here: Sequence[Any], there: Sequence[Any]) -> str:
    if here[1:3] != there[1:3]:
        return f"{_tensor(there)} there"
    return "other values" if here[3] != there[3] else f"a {there[4]} there"


def _outputs(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Reason]:
    """For programs whose inputs and nodes are the same."""
    one, other = mine["outputs"], theirs["outputs"]
    if len(one) != len(other):
        return [Reason("graph", "outputs", f"{len(one)} outputs here and {len(other)} there", len(one), len(other))]
    for n, (here, there) in enumerate(zip(one, other, strict=True)):
        if here[1:] != there[1:]:
            text = f"output {n} is {here[0]}, {_tensor(here)}, here and {there[0]}, {_tensor(there)}, there"
            return [Reason("graph", f"outputs[{n}]", text, here, there)]
    text = "the nodes are the same: the outputs' structure, what is written back, or the order of effects differs"
    return [Reason("graph", "structure", text)]


def _nodes(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Reason]:
    """Nodes whose digest the other lacks. A digest covers all that a node depends on, so the first in canonical
    order is where the difference begins and the rest follow from it."""
    found: list[Reason] = []
    for side, one, other in (("here", mine, theirs), ("there", theirs, mine)):
        lacking = Counter(node[0] for node in other["nodes"])
        fresh = []
        for node in one["nodes"]:
            if lacking[node[0]] > 0:
                lacking[node[0]] -= 1
            else:
                fresh.append(node)
        for node in fresh[:1]:
            text = f"first node only {side}: {node[1]}({_short(node[2])}){_at(node[3])}"
            found.append(Reason("graph", f"nodes.{side}", text, *((node, None) if side == "here" else (None, node))))
        if len(fresh) > 1:
            more = f"{len(fresh) - 1} more node{'s' if len(fresh) > 2 else ''}"
            found.append(Reason("graph", f"nodes.{side}.count", f"  and, from there on, {more} only {side}"))
    return found


def _more(part: str, count: int, what: str) -> list[Reason]:
    return [Reason(part, f"{part}.count", f"{count} {what} differ in all", count, count)] if count > SHOWN else []


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _at(source: str) -> str:
    return f" at {source}" if source else ""


def _tensor(entry: Sequence[Any]) -> str:
    return f"{entry[1]}[{', '.join(map(str, entry[2]))}]"


def _range(bounds: Sequence[int | None]) -> str:
    low, high = bounds
    return f"{low if low is not None else '−∞'}…{high if high is not None else '∞'}"
