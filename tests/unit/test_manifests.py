"""A manifest's format holds still: a checked-in one is read, digested and its signature verified as it was written."""

from __future__ import annotations

import json
from pathlib import Path

from farm.builds import Engine
from farm.manifests import SCHEMA, alteration, blob_of, body, signing_input
from farm.trust import load_policy

FILE = Path(__file__).parents[1] / "vectors" / "manifest.json"


def test_the_vector() -> None:
    """``manifest.json`` is a row's manifest as a worker of schema 2 wrote it, and what it comes to. If this fails, rows
    that were signed before would no longer be trusted: raise ``manifests.SCHEMA`` if that is meant."""
    vector = json.loads(FILE.read_text("utf-8"))
    row = vector["row"]
    assert vector["schema"] == row["schema"] == SCHEMA
    assert blob_of(row) == row["manifest"] == vector["blob"]
    assert body(row).decode("ascii") == vector["body"]
    assert signing_input(row) == vector["signed"].encode("ascii")
    engine = Engine(row["recipe"], row["engine"]["digest"], row["engine"]["size"], row, 0.0, 1.0)
    assert alteration(engine) == ""
    policy = load_policy(vector["trusts"])
    assert policy.refuses(engine) == "" and policy.keys[row["signature"]["key"]].name == "vector"


def test_provenance_is_whole() -> None:
    """Every word that says where an engine comes from (issue 5, item 1)."""
    row = json.loads(FILE.read_text("utf-8"))["row"]
    asked = {"program", "given", "effective", "told", "toolchain", "target", "exporter", "namespace", "key", "recipe"}
    made = {"engine", "node", "machine", "timing_cache", "seconds", "peak_memory", "log", "farm"}
    assert asked | made <= set(row)
    assert set(row["machine"]) == {"arch", "gpu", "driver", "cuda"}
    assert set(row["log"]) == {"digest", "bytes"}
