"""Graph digests: time for each node, and beside Torch-TensorRT's own hash of the same graph."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from farm.programs import open_program, schema
from farm.programs.archive import Archive
from farm.programs.pt2_archive import MODEL
from tests.bench.measure import Row, Times, alternated, beside, limited, output
from tests.bench.programs import CACHE, ROOT, kept

WHEEL = "torch-tensorrt==2.13.0"
NODES = 5_000
LIMIT_US = 25.0
MOST_OF_PEER = 3.0


def graph_digest(quick: bool) -> Iterator[Row]:
    """From the file's name to the structure digest; and that less reading and decoding the archive's JSON."""
    path = kept("long")
    repeats = 7 if quick else 20
    nodes = open_program(path).node_count
    assert nodes >= NODES, f"the program has only {nodes} nodes"
    whole, decoding = alternated(lambda: open_program(path), lambda: _decode(path), repeats, time.thread_time)
    each = 1e6 / nodes
    note = f"{nodes:,} nodes; processor time of opening the program ({whole.said(each, 'µs')}) less decoding its JSON"
    yield limited("graph-digest", (whole.least - decoding.least) * each, "µs/node", LIMIT_US, note)
    note = f"of which reading and decoding the JSON {decoding.least / whole.least:.0%}; {whole.said(each, 'µs')}"
    yield limited("graph-digest-from-file", whole.least * each, "µs/node", LIMIT_US, note)
    whole, sha256 = alternated(lambda: open_program(path), lambda: _sha256(path), repeats, time.thread_time)
    size = path.stat().st_size / 1e6
    note = f"processor time; {whole.said()}"
    yield beside("open-program", whole.least, "s", f"sha256 of the {size:.0f} MB file", sha256.least, None, note)


def _decode(path: Path) -> None:
    with Archive(path) as archive:
        schema.decode(archive.read(MODEL), schema.Model, str(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside_get_hash(quick: bool) -> Iterator[Row]:
    """Torch-TensorRT's hash covers operators' names in their order and nothing else of the graph."""
    command = [sys.executable, "-m", "tests.bench.peer", _wheel(), kept("long"), "5" if quick else "15"]
    found = json.loads(output(command, {"PYTHONWARNINGS": "ignore"}, cwd=ROOT).splitlines()[-1])
    for name, one in found.items():
        ours, theirs = Times(tuple(one["ours"])), Times(tuple(one["theirs"]))
        note = f"{one['nodes']:,} FX nodes, processor time; {ours.said(1e3, 'ms')}"
        peer = "Torch-TensorRT 2.13's get_hash"
        yield beside(f"get-hash-{name}", ours.least * 1e3, "ms", peer, theirs.least * 1e3, MOST_OF_PEER, note)


def _wheel() -> Path:
    """Torch-TensorRT's wheel, from PyPI; ``Unavailable`` where pip cannot get it."""
    found = sorted(CACHE.glob("torch_tensorrt-*.whl"))
    if not found:
        CACHE.mkdir(parents=True, exist_ok=True)
        output([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", CACHE, WHEEL])
        found = sorted(CACHE.glob("torch_tensorrt-*.whl"))
    return found[-1]
