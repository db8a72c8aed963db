"""Programs opened by many threads at once, each the first of its process: msgspec used to crash it."""

from __future__ import annotations

import subprocess
import sys

import pytest

RACE = """
import json, sys, threading
import msgspec
from farm.programs import recall, sanitise_graph, sanitise_model, sanitise_tensors, schema

THREADS = 24
KINDS = (
    sanitise_graph._Graph, recall._Kept, schema.Model, schema.PayloadConfig, schema.Graph, schema.StoredMeta,
    sanitise_graph._Node, sanitise_graph._Given, sanitise_graph._Subgraph,
    sanitise_model._Model, sanitise_tensors._Table,
)
sys.setswitchinterval(1e-7)

def first(kind, together):
    text = json.dumps(dict.fromkeys(kind.__struct_fields__, {"a": {}})).encode()
    together.wait()
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        pass

for kind in KINDS:
    together = threading.Barrier(THREADS)
    threads = [threading.Thread(target=first, args=(kind, together)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("still here")
"""


@pytest.mark.parametrize("time", range(3))
def test_first_uses_may_come_at_once(time: int) -> None:
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr[-2000:]
